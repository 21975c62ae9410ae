"""The setting `CELERIAC`: a dictionary, each key of which has a default.

    CELERIAC = {
        "SLOW_REQUEST_SECONDS": 1.0,   # longer ones are logged and kept; None for never
        "SLOW_REQUEST_QUERIES": 20,    # so are those with more queries; None for never
        "SLOW_REQUESTS_KEPT": 100,     # how many the store remembers
        "SERVER_TIMING": False,        # a Server-Timing header, which tells clients about insides
        "RATE_LIMITS": {},             # by role: celeriac.django.rate_limits, as the next ones
        "RATE_LIMIT_ROLE": None,
        "RATE_LIMIT_EXEMPT": [],
        "RATE_LIMIT_SHADOW": False,
        "RATE_LIMIT_ON_ERROR": "allow",
        "TRUSTED_PROXIES": [],         # whose X-Forwarded-For is believed
        "STORE": None,                 # a store's URL; None for that of the cache "default"
    }

A name that is none of these is an error that lists them: a misspelt one must not quietly mean the
default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from django.conf import settings
from django.core.cache import caches
from django.utils.module_loading import import_string

import celeriac
from celeriac.django.client import trusted_networks
from celeriac.errors import ConfigurationError
from celeriac.rates import parse_rates
from celeriac.url import parse_url

__all__ = ["Settings", "read", "store", "store_of", "url_of"]


class Settings(NamedTuple):
    """What `CELERIAC` says, checked."""

    slow_request_seconds: float | None = 1.0
    slow_request_queries: int | None = 20
    slow_requests_kept: int = 100
    server_timing: bool = False
    rate_limits: Mapping[str, Any] = MappingProxyType({})
    rate_limit_role: Callable[[Any], Any] | None = None
    rate_limit_exempt: Sequence[str] = ()
    rate_limit_shadow: bool = False
    rate_limit_on_error: str = "allow"
    trusted_proxies: Sequence[str] = ()
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
    for name in ("SERVER_TIMING", "RATE_LIMIT_SHADOW"):
        if not isinstance(getattr(found, name.lower()), bool):
            raise ConfigurationError(
                f"{name} in CELERIAC must be True or False, not {getattr(found, name.lower())!r}"
            )
    if found.store is not None and not isinstance(found.store, str):
        raise ConfigurationError(f"STORE in CELERIAC must be a URL, not {found.store!r}")
    if found.store is not None:
        try:
            parse_url(found.store)
        except ConfigurationError as error:
            raise ConfigurationError(f"STORE in CELERIAC: {error}") from None
    return found._replace(rate_limit_role=_check_limits(found))


def _check_limits(found: Settings) -> Callable[[Any], Any] | None:
    """Check what is about limits; returns the callable that RATE_LIMIT_ROLE names."""
    if not isinstance(found.rate_limits, Mapping):
        raise ConfigurationError(
            f"RATE_LIMITS in CELERIAC must be a dictionary of roles and rates, not "
            f"{found.rate_limits!r}"
        )
    for role, rate in found.rate_limits.items():
        if not isinstance(role, str):
            raise ConfigurationError(f"RATE_LIMITS in CELERIAC: a role is a str, not {role!r}")
        if rate is not None:
            try:
                parse_rates(rate, None, "gcra")
            except (ConfigurationError, TypeError) as error:
                raise ConfigurationError(
                    f"RATE_LIMITS in CELERIAC, role {role!r}: {error}"
                ) from None
    if found.rate_limit_on_error not in ("allow", "deny"):
        raise ConfigurationError(
            f"RATE_LIMIT_ON_ERROR in CELERIAC must be 'allow' or 'deny', not "
            f"{found.rate_limit_on_error!r}"
        )
    exempt = found.rate_limit_exempt
    if isinstance(exempt, str) or not all(isinstance(path, str) for path in exempt):
        raise ConfigurationError(
            f"RATE_LIMIT_EXEMPT in CELERIAC must be a list of paths, not {exempt!r}"
        )
    trusted_networks(found.trusted_proxies)
    role_of = found.rate_limit_role
    if isinstance(role_of, str):
        try:
            role_of = import_string(role_of)
        except ImportError as error:
            raise ConfigurationError(f"RATE_LIMIT_ROLE in CELERIAC: {error}") from None
    if role_of is not None and not callable(role_of):
        raise ConfigurationError(
            f"RATE_LIMIT_ROLE in CELERIAC must name a callable that takes a request, not "
            f"{role_of!r}"
        )
    return role_of


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

    url = read().store
    if url is not None:
        return location.at(parse_url(url)).store()
    return store_of(_first())


def store_of(alias: str) -> celeriac.Store:
    """The store of a cache. Raises as `url_of`, and CeleriacError where it can't be opened."""
    url_of(alias)
    found: celeriac.Store = caches[alias].store
    return found


def url_of(alias: str | None = None) -> str:
    """The URL of a cache's store, or of this project's; nothing is opened.

    Raises:
        ConfigurationError: there is none.
    """
    if alias is None:
        given = read().store
        if given is not None:
            return given
        alias = _first()
    if alias not in settings.CACHES:
        raise ConfigurationError(
            f"there is no cache {alias!r} in CACHES; there are {', '.join(settings.CACHES)}"
        )
    if not _has_store(alias):
        raise ConfigurationError(f"the cache {alias!r} in CACHES is no CeleriacCache")
    return str(caches[alias]._location.url)


def _has_store(alias: str) -> bool:
    return isinstance(getattr(type(caches[alias]), "store", None), property)


def _first() -> str:
    """The alias of the first cache that has a store, `default` first."""
    for alias in sorted(settings.CACHES, key=lambda each: each != "default"):
        if _has_store(alias):
            return str(alias)
    raise ConfigurationError(
        "this project has no store: no cache in CACHES is a CeleriacCache, and CELERIAC names no "
        "STORE"
    )
