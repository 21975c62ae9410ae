"""A check for django-health-check (version 4): whether the store of a cache can be used.

    HealthCheckView.as_view(checks=["health_check.Database", "celeriac.django.health_plugin.Store"])
    HealthCheckView.as_view(checks=[("celeriac.django.health_plugin.Store", {"alias": "pages"})])

Its own check of caches asks the cache, for which `IGNORE_EXCEPTIONS` makes an error a miss; this
one asks the store, as `health/cache` does, and its message is the one told there.
"""

from __future__ import annotations

import dataclasses

from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable

from celeriac.django import conf
from celeriac.django.health import UNUSABLE, reason_of, try_out

__all__ = ["Store"]


@dataclasses.dataclass
class Store(HealthCheck):
    """The store of this project, or of the cache `alias`."""

    alias: str | None = None

    def run(self) -> None:
        """Write a value and read it back. Raises ServiceUnavailable, with the reason."""
        try:
            try_out(conf.store() if self.alias is None else conf.store_of(self.alias))
        except UNUSABLE as error:
            raise ServiceUnavailable(reason_of(error)) from error
