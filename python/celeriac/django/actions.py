"""What may be done on the page `admin/cache/stats`: the safe things.

- `clear`: remove the entries of one prefix of one cache
- `retry`: put a queue's dead messages back
- `reset`: let a key that a limit has refused begin anew

Each takes the fields of a form, raises `Refused` for what it can't do, and returns what it did as
a sentence, which goes to the person and into the admin's log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from celeriac.django import limited
from celeriac.django.samples import own
from celeriac.errors import StoreNotFound
from celeriac.prefix_stats import OTHER, SEPARATOR, prefix_of
from celeriac.store import Store

__all__ = ["ACTIONS", "Refused", "clear_prefix"]


class Refused(Exception):
    """Why nothing was done, for people."""


def clear_prefix(store: Store, cache: str, prefix: str) -> int:
    """Remove what `Cache.stats_by_prefix` counts under a prefix; how many entries. Bounded work at
    a time, no lock; what is being computed for such a key isn't stored."""
    entries = store.cache(cache)
    lead, _ = entries._core.prefixes()

    def ours(key: Any) -> bool:
        return prefix_of(key, SEPARATOR.encode(), lead) == prefix

    entries._spoil_flights(lambda name, key: name == entries.name and ours(key))
    steps = entries._walk(1000, absent=True)  # what is stale as well: it may still be given
    return sum(entries.delete(key) for step in steps for key in step if ours(key))


def _clear(store: Store, form: Mapping[str, str]) -> str:
    cache, prefix = form.get("cache", ""), form.get("prefix")
    if cache not in store.caches() or own(cache):
        raise Refused(f"there is no cache {cache!r}")
    if prefix is None or prefix == OTHER:
        raise Refused("no prefix was named")
    number = clear_prefix(store, cache, prefix)
    what = f"the prefix {prefix!r}" if prefix else "keys without a prefix"
    return f"Cleared {what} of the cache {cache!r}: {_many(number, 'entry', 'entries')}."


def _retry(store: Store, form: Mapping[str, str]) -> str:
    name = form.get("queue", "")
    try:
        number = store.queue(name, create=False).retry_dead()
    except StoreNotFound:
        raise Refused(f"there is no queue {name!r}") from None
    return f"Put back dead messages of the queue {name!r}: {_many(number, 'message', 'messages')}."


def _reset(store: Store, form: Mapping[str, str]) -> str:
    found = limited.find(store, form.get("id", ""))
    if found is None:
        raise Refused("this key isn't limited any more")
    limited.reset(store, found)
    return f"Reset the limit {found.limiter!r} for {found.key!r}."


def _many(number: int, one: str, several: str) -> str:
    return f"{number:,} {one if number == 1 else several}"


ACTIONS: dict[str, Callable[[Store, Mapping[str, str]], str]] = {
    "clear": _clear,
    "retry": _retry,
    "reset": _reset,
}
