"""`celeriac keys|get|clear`: the entries of a store's caches."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

from celeriac.cache import Cache
from celeriac.cache_entries import MISSING
from celeriac.django.actions import clear_prefix
from celeriac.django.samples import own
from celeriac.entries import Named
from celeriac.errors import ConfigurationError, SerializationError, StoreNotFound
from celeriac.patterns import compiled, escape
from celeriac.prefix_stats import OTHER
from celeriac.store import Store

from .asking import agreed
from .look import look
from .tables import print_table, visible

FINE, FINDING = 0, 1
MOST_KEYS = 1000
MOST_HINTS = 5


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three commands to the parser."""
    parser = commands.add_parser(
        "keys",
        help="show the keys of a store's caches",
        description="Shows keys, with their bytes (key and value as they are stored) and the "
        "seconds that they have left. Changes and counts nothing.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="for example '*:product:?' (*)"
    )
    _add_cache(parser)
    parser.add_argument(
        "--limit", type=_count, default=MOST_KEYS, metavar="N", help=f"(default: {MOST_KEYS})"
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=keys)

    parser = commands.add_parser(
        "get",
        help="show the value of a key",
        description="Shows a value. Counts as no hit, and runs no code of what it reads: what is "
        "pickled is shown with --unpickle only. Exit code 1 when the key isn't there.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.add_argument("key", metavar="KEY", help="as `celeriac keys` shows it")
    _add_cache(parser)
    parser.add_argument(
        "--unpickle",
        action="store_true",
        help="also what is pickled, by importing the classes in it: run it where the application's "
        "modules are found",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=get)

    parser = commands.add_parser(
        "clear",
        help="remove the entries of a store's caches",
        description="Removes entries of caches: all, those of one cache, or those of one prefix. "
        "Never messages, results, limits or locks. Asks first.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    _add_cache(parser)
    parser.add_argument(
        "--prefix",
        metavar="PREFIX",
        help="only keys under it, as `celeriac stats` counts them: 'product' is 'product:…', with "
        "or without Django's prefix and version before it; '' is keys without a prefix",
    )
    parser.add_argument("--yes", action="store_true", help="don't ask")
    parser.set_defaults(run=clear)


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cache", metavar="NAME", help="one cache, as `celeriac stats` names it (default: all)"
    )


def _caches(store: Store, options: argparse.Namespace, serializer: str = "json") -> list[Cache]:
    """The caches that are meant. With json nothing that is pickled is read. Raises StoreNotFound,
    with the names that there are."""
    there = sorted(store.caches())
    if options.cache is None:
        return [store.cache(name, serializer=serializer) for name in there if not own(name)]
    if options.cache not in there:
        names = ", ".join(map(visible, there)) or "none"
        raise StoreNotFound(
            f"no cache {visible(options.cache)!r} in {options.url}; there are: {names}"
        )
    return [store.cache(options.cache, serializer=serializer)]


def keys(options: argparse.Namespace) -> int:
    """Print keys."""
    with look(options.url) as store:
        found = _keys(store, options)
        rows = list(itertools.islice(found, options.limit))
        more = next(found, None) is not None
    if options.json:
        print(json.dumps(rows, indent=2))
        return FINE
    if not rows:
        print(f"no key matches {visible(options.pattern)!r}")
        return FINE
    print_table(["key", "cache", "bytes", "expires in"], [_row(row) for row in rows])
    if more:
        print(f"more than {options.limit:,}: --limit shows more")
    return FINE


def _keys(store: Store, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    matches = compiled(options.pattern).matches
    # Whatever wrote an entry; its header is looked at, no value is read.
    for cache, native in zip(
        _caches(store, options), _caches(store, options, "native"), strict=True
    ):
        seen: set[Any] = set()  # of keys that come twice while their table is replaced
        for step in native._walk(1000):
            for key, size in step.items():
                if not matches(key) or key in seen:
                    continue
                left = cache._entries.left(key)
                if left is MISSING:
                    left = native._entries.left(key)
                if left is MISSING:  # gone since
                    continue
                seen.add(key)
                yield {
                    "key": key.decode(errors="backslashreplace") if type(key) is bytes else key,
                    "cache": cache.name,
                    "bytes": size,
                    "ttl": None if left is None else round(left, 1),
                }


def _row(found: dict[str, Any]) -> list[str]:
    left = "never" if found["ttl"] is None else f"{found['ttl']:,.0f} s"
    return [found["key"], found["cache"], f"{found['bytes']:,}", left]


def get(options: argparse.Namespace) -> int:
    """Print a value. Raises StoreNotFound where there is no such key or cache."""
    key = os.fsencode(options.key)  # may be no UTF-8
    with look(options.url) as store:
        caches = _caches(store, options, "native" if options.unpickle else "json")
        found = [cache for cache in caches if cache._core.examine(key, False)]
        if len(found) > 1:
            names = ", ".join(visible(cache.name) for cache in found)
            raise ConfigurationError(f"several caches have this key: --cache, one of {names}")
        if not found:
            raise StoreNotFound(_missing(store, options))
        (cache,) = found
        value = _value(cache, key, options.unpickle)
        left, tags = cache._entries.left(key), cache.tags_of(key)
    if options.json:
        told = {"key": options.key, "cache": cache.name, "tags": tags, "value": value}
        told["ttl"] = round(left, 1) if isinstance(left, float) else None
        try:
            print(json.dumps(told, indent=2))
        except (TypeError, ValueError):  # more than JSON has: as Python writes it
            print(json.dumps({**told, "value": repr(value)}, indent=2))
    else:
        print(repr(value))
    return FINE


def _value(cache: Cache, key: bytes, unpickle: bool) -> Any:
    """The value, without a count. Raises CeleriacError where it can't be shown."""
    try:
        seen = cache._core.examine(key, True)
        if seen is None or type(seen[0]) is not Named:
            opened: Any = seen
        elif (whole := cache._entries.opened(seen[0])) is not None:
            opened = whole[1:]
        else:
            opened = None
    except Exception as error:  # whatever the pickled code raises
        raise SerializationError(f"the value can't be read: {error}") from None
    if opened is None:
        raise SerializationError(
            "the value was written by a serializer of the application's own, or invalidated"
            + ("" if unpickle else f", or it is pickled: {UNPICKLE}")
        )
    return opened[0]


UNPICKLE = "--unpickle shows that, by running the code that it names"


def _missing(store: Store, options: argparse.Namespace) -> str:
    """That it isn't there, and which keys end like it: Django puts something before them."""
    text = f"no key {visible(options.key)!r} in {options.url}"
    asked = argparse.Namespace(
        url=options.url, cache=options.cache, pattern=f"*:{escape(options.key)}"
    )
    like = [row["key"] for row in itertools.islice(_keys(store, asked), MOST_HINTS)]
    return text + (f"; there is {', '.join(repr(key) for key in like)}" if like else "")


def clear(options: argparse.Namespace) -> int:
    """Remove entries, after a question."""
    if options.prefix == OTHER:
        raise ConfigurationError(f"{OTHER} is no prefix, but all that have no row of their own")
    with look(options.url) as store:
        caches = _caches(store, options)
        names = ", ".join(visible(cache.name) for cache in caches) or "no cache"
        what = "all entries" if options.prefix is None else f"what is under {options.prefix!r}"
        question = f"remove {what} of {names} in {options.url}? [y/N] "
        if not options.yes and not agreed(question):
            print("nothing was removed")
            return FINDING
        removed = 0
        for cache in caches:
            if options.prefix is None:
                removed += len(cache)
                cache.clear()
            else:
                removed += clear_prefix(store, cache.name, options.prefix.rstrip(":"))
    print(f"{removed:,} removed")
    return FINE


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value
