"""The setting `CELERIAC`: a dictionary, each key of which has a default.

    CELERIAC = {
        "SLOW_REQUEST_SECONDS": 1.0,   # longer ones are logged and kept; None for never
        "SLOW_REQUEST_QUERIES": 20,    # so are those with more queries; None for never
        "SLOW_REQUESTS_KEPT": 100,     # how many the store remembers
        "SERVER_TIMING": False,        # a Server-Timing header, which tells clients about insides
        "STORE": None,                 # a store's URL; None for that of the cache "default"
    }

A name that is none of these is an error that lists them: a misspelt one must not quietly mean the
default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from django.conf import settings
from django.core.cache import caches

import celeriac
from celeriac.errors import ConfigurationError

__all__ = ["Settings", "read", "store"]


class Settings(NamedTuple):
    """What `CELERIAC` says, checked."""

    slow_request_seconds: float | None = 1.0
    slow_request_queries: int | None = 20
    slow_requests_kept: int = 100
    server_timing: bool = False
    store: str | None = None


def read() -> Settings:
    """The setting as it is now. Raises ConfigurationError, which names what is wrong."""
    given = getattr(settings, "CELERIAC", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"CELERIAC must be a dictionary, not {given!r}")
    known = {name.upper(): name for name in Settings._fields}
    for name in given:
        if name not in known:
            raise ConfigurationError(
                f"unknown name {name!r} in CELERIAC; known are {', '.join(known)}"
            )
    found = Settings(**{known[name]: value for name, value in given.items()})
    _check_number("SLOW_REQUEST_SECONDS", found.slow_request_seconds, int | float)
    _check_number("SLOW_REQUEST_QUERIES", found.slow_request_queries, int)
    if found.slow_requests_kept is None:
        raise ConfigurationError("SLOW_REQUESTS_KEPT in CELERIAC must be a number, not None")
    _check_number("SLOW_REQUESTS_KEPT", found.slow_requests_kept, int)
    if not isinstance(found.server_timing, bool):
        raise ConfigurationError(
            f"SERVER_TIMING in CELERIAC must be True or False, not {found.server_timing!r}"
        )
    if found.store is not None and not isinstance(found.store, str):
        raise ConfigurationError(f"STORE in CELERIAC must be a URL, not {found.store!r}")
    return found


def _check_number(name: str, value: Any, types: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, types) or not value >= 0:
        raise ConfigurationError(
            f"{name} in CELERIAC must be a number from 0 upward, not {value!r}"
        )


def store() -> celeriac.Store:
    """The store of this project: STORE, or that of the first cache that has one, `default` first.

    Raises:
        ConfigurationError: there is none.
        CeleriacError: it can't be opened.
    """
    from celeriac.django import location
    from celeriac.url import parse_url

    url = read().store
    if url is not None:
        return location.at(parse_url(url)).store()
    for alias in sorted(settings.CACHES, key=lambda each: each != "default"):
        found = getattr(caches[alias], "store", None)
        if isinstance(found, celeriac.Store):
            return found
    raise ConfigurationError(
        "this project has no store: no cache in CACHES is a CeleriacCache, and CELERIAC names no "
        "STORE"
    )
