"""Django REST framework's throttles, with what was used in the store instead of a cache.

    REST_FRAMEWORK = {
        "DEFAULT_THROTTLE_CLASSES": ["celeriac.django.throttling.UserRateThrottle"],
        "DEFAULT_THROTTLE_RATES": {"user": "1000/day", "anon": "20/min"},
    }

The framework's own keep each client's requests in a list in the cache, which two processes read
and write at once: more than the rate pass, and a full cache forgets. These decide in one step, for
all processes of the host. Names, scopes and rates are the framework's (``5/s``, ``5/sec``,
``5/minute``, ``5/day``); each lets its whole count through at once and then one each period/count,
as :class:`celeriac.Limiter` does.
"""

from __future__ import annotations

from typing import Any

from rest_framework import throttling

from celeriac.django import decisions
from celeriac.limits import Decision

__all__ = ["AnonRateThrottle", "LimiterThrottle", "ScopedRateThrottle", "UserRateThrottle"]


class LimiterThrottle(throttling.SimpleRateThrottle):
    """What they have in common; for throttles of one's own, with a ``get_cache_key``."""

    #: As of :meth:`celeriac.Store.limiter`.
    algorithm = "gcra"
    on_error = "allow"

    #: What was decided about the request, or None where nothing limits it.
    decision: Decision | None = None

    def allow_request(self, request: Any, view: Any) -> bool:
        """Whether the request may go on."""
        if self.rate is None:
            return True
        key = self.get_cache_key(request, view)
        if key is None:
            return True
        rate = f"{self.num_requests}/{self.duration}s"

        def limit() -> decisions.Limit:
            name = f"django rest {self.scope} {self.rate}"
            return decisions.limit(rate, name, self.algorithm, on_error=self.on_error)

        self.decision = decisions.decide(limit, key, rate, self.on_error)
        return bool(self.decision)

    def wait(self) -> float | None:
        """Seconds for ``Retry-After``."""
        return None if self.decision is None else self.decision.retry_after


class AnonRateThrottle(throttling.AnonRateThrottle, LimiterThrottle):
    """Those who aren't logged in, by address; scope ``anon``."""


class UserRateThrottle(throttling.UserRateThrottle, LimiterThrottle):
    """Users by themselves, others by address; scope ``user``."""


class ScopedRateThrottle(throttling.ScopedRateThrottle, LimiterThrottle):
    """Views with a ``throttle_scope``."""
