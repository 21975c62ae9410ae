"""A limiter's decision on a request, also while its store can't be opened; refusals are noted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from celeriac.cache import Cache
from celeriac.django import conf, limited, location
from celeriac.errors import CeleriacError, ConfigurationError
from celeriac.limits import Decision, Limiter, undecided
from celeriac.rates import parse_rates

__all__ = ["Limit", "decide", "limit"]

_log = logging.getLogger("celeriac.django.limits")
_QUIET = 10.0
_complained: dict[str, float] = {}


class Limit(NamedTuple):
    """A limiter, and where its refusals are noted."""

    limiter: Limiter
    book: Cache
    algorithm: str

    def hit(self, key: str) -> Decision:
        """The limiter's decision."""
        decision = self.limiter.hit(key)
        if decision.retry_after:
            limited.note(self.book, self.limiter, self.algorithm, key, decision)
        return decision


def limit(rate: Any, name: str, algorithm: str = "gcra", **options: Any) -> Limit:
    """One of the store that Django's cache has, or that ``CELERIAC`` names."""
    store = conf.store()
    limiter = store.limiter(rate, name=name, algorithm=algorithm, **options)
    return Limit(limiter, limited.book_of(store), algorithm)


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
