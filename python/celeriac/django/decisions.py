"""A limiter's decision on a request, also while its store can't be opened; refusals are noted.

Decisions are counted in the store: ``celeriac_limit_decisions_total`` with the labels ``limit``,
its name, and ``outcome``: ``allowed``, ``refused``, or ``shadowed`` for what was over a limit in
shadow mode and allowed all the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from celeriac.cache import Cache
from celeriac.django import conf, limited, location
from celeriac.errors import CeleriacError, ConfigurationError
from celeriac.limits import Decision, Limiter, undecided
from celeriac.metrics import Counter
from celeriac.rates import parse_rates
from celeriac.store import Store

__all__ = ["Limit", "counter_of", "decide", "limit"]

_log = logging.getLogger("celeriac.django.limits")
_QUIET = 10.0
_complained: dict[str, float] = {}


class Limit(NamedTuple):
    """A limiter, where its refusals are noted, and what counts a decision by its outcome."""

    limiter: Limiter
    book: Cache
    algorithm: str
    store: Store
    counts: dict[str, Callable[[], None]]

    def hit(self, key: str) -> Decision:
        """The limiter's decision."""
        decision = self.limiter.hit(key)
        outcome = "allowed"
        if decision.retry_after:
            limited.note(self.book, self.limiter, self.algorithm, key, decision)
            outcome = "shadowed" if decision.allowed else "refused"
        with suppress(CeleriacError):  # it is decided, whether it is counted or not
            count = self.counts.get(outcome)
            if count is None:
                family = counter_of(self.store)
                count = self.counts[outcome] = family.labels(self.limiter.name, outcome).inc
            count()
        return decision


def counter_of(store: Store) -> Counter:
    """The family that counts decisions."""
    text = "Decisions of the limits of a site's requests."
    return store.metrics.counter("celeriac_limit_decisions", text, ["limit", "outcome"])


def limit(rate: Any, name: str, algorithm: str = "gcra", **options: Any) -> Limit:
    """One of the store that Django's cache has, or that ``CELERIAC`` names."""
    store = conf.store()
    limiter = store.limiter(rate, name=name, algorithm=algorithm, **options)
    return Limit(limiter, limited.book_of(store), algorithm, store, {})


def decide(
    made: Callable[[], Limit], key: str, rate: str | Iterable[str], on_error: str
) -> Decision:
    """The decision of the limit that is made; where that fails, what ``on_error`` says, and a
    line in the log, once in ten seconds. Raises ConfigurationError where the settings are wrong."""
    try:
        return made().hit(key)
    except CeleriacError as error:
        if isinstance(error, ConfigurationError) and not location.is_outage(error):
            raise
        now, said = time.monotonic(), str(error)
        if now - _complained.get(said, -_QUIET) >= _QUIET:
            _complained.clear()
            _complained[said] = now
            _log.warning("rate limits can't ask their store, and on_error=%r: %s", on_error, error)
    return undecided(parse_rates(rate, None, "gcra")[0], on_error)
