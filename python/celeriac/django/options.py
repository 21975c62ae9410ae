"""What a `CACHES` entry means: its OPTIONS taken apart and checked, before any store is touched.

OPTIONS holds three kinds of names in one dictionary. Django's are in capitals (`MAX_ENTRIES`,
`CULL_FREQUENCY`), and as django-redis calls them `IGNORE_EXCEPTIONS` and `LOG_IGNORED_EXCEPTIONS`.
The others are those of `celeriac.connect` and of `Store.cache`, under the names that they have
there. A name that is none of these is an error that lists them all: a misspelt `memory` must not
quietly mean the default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from celeriac.errors import ConfigurationError
from celeriac.url import Options as ConnectOptions
from celeriac.url import StoreURL, parse_url

from . import redis_compat

DJANGO_OPTIONS = ("MAX_ENTRIES", "CULL_FREQUENCY", "IGNORE_EXCEPTIONS", "LOG_IGNORED_EXCEPTIONS")
CACHE_OPTIONS = ("max_entries", "serializer", "compressor", "compress_above")
CONNECT_OPTIONS = tuple(sorted(field.name for field in fields(ConnectOptions)))

DEFAULT_CULL_FREQUENCY = 3


@dataclass(frozen=True)
class Options:
    """One `CACHES` entry.

    `url` is the LOCATION with the options to connect with; `cache` are keywords for `Store.cache`.
    `max_entries` is None where Django's MAX_ENTRIES was not given: then memory alone bounds the
    cache.
    """

    url: StoreURL
    max_entries: int | None
    cull_frequency: int
    ignore_exceptions: bool
    log_ignored: bool
    cache: dict[str, Any]


def parse(location: str, params: Mapping[str, Any]) -> Options:
    """The options of a `CACHES` entry; ConfigurationError names what is wrong with them."""
    if not location or not isinstance(location, str):
        raise ConfigurationError(
            f"LOCATION of a celeriac cache must be the URL of a store, such as 'shm://app', "
            f"not {location!r}"
        )
    options = params.get("OPTIONS", {})
    if not isinstance(options, Mapping):
        raise ConfigurationError(
            f"OPTIONS of the cache at {location!r} must be a dictionary, not {options!r}"
        )
    known = DJANGO_OPTIONS + CACHE_OPTIONS + CONNECT_OPTIONS
    for name in options:
        if name not in known:
            raise ConfigurationError(
                f"unknown name {name!r} in OPTIONS of the cache at {location!r}; "
                f"known are {', '.join(known)}"
            )
    return Options(
        url=parse_url(
            location, **{name: options[name] for name in CONNECT_OPTIONS if name in options}
        ),
        max_entries=_whole_number(
            "MAX_ENTRIES", params.get("max_entries", options.get("MAX_ENTRIES")), None
        ),
        cull_frequency=_whole_number(
            "CULL_FREQUENCY",
            params.get("cull_frequency", options.get("CULL_FREQUENCY")),
            DEFAULT_CULL_FREQUENCY,
        ),
        ignore_exceptions=_yes_or_no(
            "IGNORE_EXCEPTIONS",
            options.get("IGNORE_EXCEPTIONS", redis_compat.setting("IGNORE_EXCEPTIONS", False)),
        ),
        log_ignored=_yes_or_no(
            "LOG_IGNORED_EXCEPTIONS",
            options.get(
                "LOG_IGNORED_EXCEPTIONS", redis_compat.setting("LOG_IGNORED_EXCEPTIONS", False)
            ),
        ),
        cache={name: options[name] for name in CACHE_OPTIONS if name in options},
    )


def _whole_number(name: str, value: Any, absent: Any) -> Any:
    if value is None:
        return absent
    digits = isinstance(value, str) and value.isascii() and value.isdigit()
    if digits or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return int(value)
    raise ConfigurationError(f"{name} must be a whole number from 0 upward, not {value!r}")


def _yes_or_no(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ConfigurationError(f"{name} must be True or False, not {value!r}")
