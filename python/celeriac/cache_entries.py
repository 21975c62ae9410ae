"""The entries of one cache, those with a header among them.

What the core has is not always what the cache has: an entry with an invalidated tag, one whose ttl
has passed and that is only kept for its grace, or one that this cache can't read since settings
changed, is as good as absent. Here the two are told apart; `cache.py` has the calls that users
make, `fill.py` what `get_or_set` makes of a stale value.

- E1  An entry in its grace is absent for every call but `get_or_set`'s own looks: nothing touches,
  persists, counts or finds it.
- E2  A new ttl is that of the fresh value; the grace comes after it, as long as before. What races
  with another's write of the same key may shorten the life of what was written, and never gives
  one entry the grace of another.
- E3  What can't be read here is absent for every call, `add` and `get_or_set` included, which
  replace it. (Damage inside of a payload is seen by those that read the value, and by these two.)
- E4  A value that its serializer fails on, its class being gone, say, is an error for every call
  but `get_or_set`, for which it is absent.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any, Final

from celeriac import _core
from celeriac.entries import PLAIN, Format, Header, Named, Unreadable, parse
from celeriac.errors import SerializationError
from celeriac.prefix_stats import NOT_APART
from celeriac.single_flight import Flights
from celeriac.tags import NAMESPACE as TAGS_NAMESPACE
from celeriac.tags import Tags

logger: Final = logging.getLogger("celeriac")
Key = str | bytes
MISSING: Final = object()
UNREADABLE: Final = Named()
"""Stands for a value that can't be decoded: an entry to look into, in which there is nothing."""

_told: set[str] = set()  # the caches of which an entry that can't be read was logged


class Shared:
    """What the caches of one store handle share; opened when it is first needed."""

    __slots__ = ("_flights", "_store", "_tags")

    def __init__(self, store: _core.Store) -> None:
        self._store = store
        self._flights: Flights | None = None
        self._tags: _core.Cache | None = None

    @property
    def flights(self) -> Flights:
        """The flights of the store. (Two threads may both make the object: it holds nothing.)"""
        flights = self._flights
        if flights is None:
            flights = self._flights = Flights(self._store)
        return flights

    def tags(self, space: str) -> Tags:
        """The tags of a cache."""
        core = self._tags
        if core is None:
            core = self._tags = self._store.cache(
                TAGS_NAMESPACE, table=False, pickle_all=False, lead=NOT_APART
            )
        return Tags(core, space)


class CacheEntries:
    """A cache's entries. Thread-safe, fork-safe. Raises what the core raises."""

    __slots__ = ("_flights", "_tags", "core", "format", "name", "shared")

    def __init__(
        self, core: _core.Cache, name: str, shared: Shared, format: Format = PLAIN
    ) -> None:
        self.core = core
        self.name = name
        self.format = format
        self.shared = shared
        self._flights: tuple[_core.Cache, bytes] | None = None
        self._tags: Tags | None = None

    @property
    def flights(self) -> tuple[_core.Cache, bytes]:
        """Where the flights of this cache are, and what stands before a key there."""
        where = self._flights
        if where is None:
            flights = self.shared.flights
            where = self._flights = flights.core, flights.place(self.name, b"")[1]
        return where

    @property
    def tags(self) -> Tags:
        """The tags of this cache."""
        tags = self._tags
        if tags is None:
            tags = self._tags = self.shared.tags(self.name)
        return tags

    # ---- reading

    def header(self, entry: Named) -> Header | None:
        """The header of an entry that can be read and whose tags are valid, else None."""
        header = parse(entry)
        if header is None or not self.format.reads(entry, header):
            return None
        if header.tags and not self.tags.valid(header.tags):
            return None
        return header

    def opened(self, entry: Named) -> tuple[Header, Any] | None:
        """Header and value, stale or not; None for an entry that is as good as absent."""
        header = self.header(entry)
        if header is None:
            return None
        try:
            return header, self.format.unpack(entry, header)
        except Unreadable:
            return None

    def unreadable(self, key: Key, error: SerializationError) -> Named:
        """UNREADABLE, for `get_or_set`; the first of a cache is logged. Raises the error again
        where the value could be read elsewhere: Django forbids its database to event loops."""
        if type(error.__cause__).__name__ == "SynchronousOnlyOperation":
            raise error
        if self.name not in _told:
            _told.add(self.name)
            logger.warning(
                "celeriac: the value of %r in cache %r is computed anew, for it can't be read: %s. "
                "Further ones of this cache are not logged in this process.",
                key,
                self.name,
                error,
            )
        return UNREADABLE

    def look(self, key: Key) -> Any:
        """A value, an entry to look into, or MISSING; counted as a read."""
        try:
            return self.core.get(key, MISSING)
        except SerializationError as error:
            return self.unreadable(key, error)

    def examine(self, key: Key) -> tuple[Any, int, float | None] | None:
        """Value or entry, version and seconds left; not counted."""
        with suppress(SerializationError):
            return self.core.examine(key, True)
        while (before := self.core.examine(key, False)) is not None:
            try:
                return self.core.examine(key, True)
            except SerializationError as error:
                after = self.core.examine(key, False)
                if after is not None and after[1] == before[1]:  # else it was written meanwhile
                    return self.unreadable(key, error), after[1], after[2]
        return None

    def open(self, key: Key, entry: Any, default: Any) -> Any:
        """The value of an entry just read, or ``default``: then it wasn't a hit."""
        opened = self.opened(entry)
        if opened is not None:
            header, value = opened
            if not header.grace:
                return value
            seen = self.core.examine(key, False)
            if seen is not None and not _is_stale(header, seen[2]):
                return value
        self.core.missed(key)
        return default

    def left(self, key: Key) -> Any:
        """Seconds that a key's value has left, None for ever; MISSING when it is absent."""
        seen = self.core.examine(key, False)
        if seen is None:
            return MISSING
        entry, _, left = seen
        if type(entry) is not Named:
            return left
        header = self._fresh(entry, left)
        if header is None:
            return MISSING
        return None if left is None else left - header.grace

    def tags_of(self, key: Key) -> tuple[str, ...]:
        """The tags of an entry."""
        seen = self.core.examine(key, False)
        header = self._fresh(seen[0], seen[2]) if seen and type(seen[0]) is Named else None
        return tuple(tag for tag, _ in header.tags) if header else ()

    def _fresh(self, entry: Named, left: float | None) -> Header | None:
        """The header of an entry that isn't as good as absent."""
        header = self.header(entry)
        return None if header is None or _is_stale(header, left) else header

    def _stands(self, entry: Named, left: float | None) -> bool:
        """Whether there is a value, or an error on reading it, for who gets this entry."""
        with suppress(SerializationError):
            return self._fresh(entry, left) is not None and self.opened(entry) is not None
        return True

    # ---- writing

    def pack(self, value: Any, tags: tuple[str, ...]) -> Any:
        """What the core shall store for a value with these tags."""
        return self.format.pack(value, self.tags.generations(tags) if tags else ())

    def add(self, key: Key, packed: Any, seconds: float | None) -> bool:
        """Store what was packed if the key is absent; True when it was stored."""
        while not self.core.add(key, packed, seconds):
            seen = self.core.examine(key, False)
            if seen is None:
                continue
            entry, version, left = seen
            if type(entry) is not Named or self._stands(entry, left):
                return False
            if self.core.compare_and_set(key, version, packed, seconds):
                return True
        return True

    def touch(self, key: Key, seconds: float | None) -> bool:
        """Give a key a new ttl, before its grace if it has one; True when it was there."""
        while (touched := self.core.touch_plain(key, seconds)) is None:
            seen = self.core.examine(key, False)
            if seen is None:
                return False
            entry, version, left = seen
            if type(entry) is not Named:
                return self.core.touch(key, seconds)
            header = self._fresh(entry, left)
            if header is None:
                return False
            kept = None if seconds is None else seconds + header.grace
            if not self.core.touch(key, kept):
                return False
            after = self.core.examine(key, False)
            if after is None or after[1] == version:  # else it was another's entry that we touched
                return True
        return touched

    def remove(self, key: Key) -> bool:
        """Remove a key; True when it was there. What is being computed for it isn't stored."""
        removed = self.core.delete_plain(key, *self.flights)
        if removed is not None:
            return removed
        seen = self.core.examine(key, False)
        flights = self.shared.flights
        flights.spoil(flights.place(self.name, key))
        if seen is not None and type(seen[0]) is Named and not self._fresh(seen[0], seen[2]):
            self.core.delete(key)
            return False
        return self.core.delete(key)

    def add_to(self, key: Key, delta: int) -> int | None:
        """Add to an int that is packed or beyond 64 bits; None when the key is absent.

        Raises TypeError when the value is no int.
        """
        while True:
            seen = self.core.examine(key, True)
            if seen is None:
                return None
            value, version, left = seen
            header = None
            if type(value) is Named:
                opened = self.opened(value)
                if opened is None or _is_stale(opened[0], left):
                    return None
                header, value = opened
            if type(value) is not int:
                raise TypeError(f"the value of key {key!r} is not an int")
            value += delta
            packed = value
            if header is not None:
                packed = self.format.pack(value, header.tags, header.grace, header.delta)
            if self.core.compare_and_set(key, version, packed, left):
                return value


def _is_stale(header: Header, left: float | None) -> bool:
    return left is not None and left <= header.grace
