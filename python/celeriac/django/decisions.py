"""A limiter's decision on a request, also while its store can't be opened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from celeriac.errors import CeleriacError, ConfigurationError
from celeriac.limits import Decision, Limiter, undecided
from celeriac.rates import parse_rates

__all__ = ["decide"]

_log = logging.getLogger("celeriac.django.limits")
_QUIET = 10.0
_complained: dict[str, float] = {}


def decide(
    limiter: Callable[[], Limiter], key: str, rate: str | Iterable[str], on_error: str
) -> Decision:
    """The decision of the limiter that is made; where that fails, what ``on_error`` says, and a
    line in the log, once in ten seconds. Raises ConfigurationError."""
    try:
        return limiter().hit(key)
    except ConfigurationError:
        raise
    except CeleriacError as error:
        now, said = time.monotonic(), str(error)
        if now - _complained.get(said, -_QUIET) >= _QUIET:
            _complained.clear()
            _complained[said] = now
            _log.warning("rate limits can't ask their store, and on_error=%r: %s", on_error, error)
    return undecided(parse_rates(rate, None, "gcra")[0], on_error)
