"""Caches and tables of a store."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple, final

from celeriac import _core, checks
from celeriac import fill as filling
from celeriac import tags as tagging
from celeriac._core import Cache as CoreCache
from celeriac.cache_entries import MISSING, CacheEntries
from celeriac.entries import Named
from celeriac.errors import CeleriacError, ConfigurationError, SerializationError
from celeriac.patterns import compiled
from celeriac.prefix_stats import PrefixStats, by_prefix

Key = str | bytes
DEFAULT_TTL: Final = 300.0


@final
class _UseDefault:
    """The type of a ttl that wasn't given."""

    def __repr__(self) -> str:
        return "<default ttl>"


USE_DEFAULT: Final = _UseDefault()
TTL = float | int | None | _UseDefault


class CacheStats(NamedTuple):
    """Statistics of one namespace, over all processes, since the store was made.

    ``expirations`` are the entries that went because their time was over: each is counted once,
    when a write of its key replaces or removes it, or its memory is given to others. Until then it
    is one of the ``entries``, and a read of it is a miss: reads change nothing that is shared.
    """

    hits: int
    misses: int
    sets: int
    deletes: int
    evictions: int
    expirations: int
    entries: int
    bytes: int
    bytes_limit: int

    @property
    def hit_ratio(self) -> float:
        """Hits per lookup, 0.0 to 1.0; 0.0 before the first lookup."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


class Cache:
    """A namespace of a store: keys to values, bounded by the store's memory, shared by every
    process of the host.

    Keys are ``str`` (taken as UTF-8) or ``bytes``, at most 65,535 bytes. Values are any object that
    the cache's serializer takes: by the native one, plain data (``None``, ``bool``, ``int``,
    ``float``, ``str``, ``bytes``, ``list``, ``tuple``, ``dict``, sets, dates and times,
    ``timedelta``, ``Decimal``, ``UUID``, of exactly these types) is stored in a form of its own,
    which runs no code when it is read; everything else, and what holds a container twice, is
    pickled. A ``ttl`` is in seconds; ``None`` means no expiry, zero or less means expired at once;
    not given, the cache's own. ``tags`` are names under which entries are invalidated together.

    An entry whose tag was invalidated, or whose ttl has passed while :meth:`get_or_set` may still
    give it (``stale``, ``stale_on_error``), is absent for every other call at once; its memory
    comes back later, so ``len()`` and ``stats()`` may count it until then.

    Thread-safe, fork-safe. Pickles as its store's URL, its name and its options. Crash-safe: a
    process that dies while writing leaves the entry old, new
    or absent. Readers take no lock. Errors: :class:`~celeriac.ValueTooLarge`,
    :class:`~celeriac.NotEnoughMemory`, :class:`~celeriac.SerializationError`,
    :class:`~celeriac.ConfigurationError` (the store is closed).
    """

    __slots__ = ("_again", "_core", "_entries", "max_entries", "name", "ttl_default")

    def __init__(
        self,
        core: CoreCache,
        entries: CacheEntries,
        name: str,
        ttl: float | None,
        again: Callable[[], Cache],
        max_entries: int | None = None,
    ) -> None:
        """`again` makes the same handle in whatever process it is unpickled in."""
        self._again = again
        self._core = core
        self._entries = entries
        self.name = name
        self.ttl_default = ttl
        self.max_entries = max_entries
        if max_entries is not None:
            core.limit(min(max_entries, 2**32 - 1))

    @property
    def is_plain(self) -> bool:
        """Whether the core alone writes this cache's values."""
        return self._entries.format.is_plain

    def native_flights(self) -> tuple[CoreCache, bytes]:
        """Where the core finds the flight of a key, and what stands before the key there."""
        return self._entries.flights

    def opened(self, key: Key, entry: Any, default: Any) -> Any:
        """The value of an entry that was read past this object, or ``default``."""
        return self._entries.open(key, entry, default) if type(entry) is Named else entry

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()

    def _seconds(self, ttl: TTL) -> float | None:
        if isinstance(ttl, _UseDefault):
            return self.ttl_default
        if type(ttl) is not int and type(ttl) is not float:
            checks.check_ttl(ttl)
        return ttl

    # ------------------------------------------------------------------ one key

    def get(self, key: Key, default: Any = None) -> Any:
        """The value, or ``default``."""
        value = self._core.get(key, default)
        return self._entries.open(key, value, default) if type(value) is Named else value

    def set(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> None:
        """Store a value."""
        seconds = self._seconds(ttl)
        if seconds is not None and seconds <= 0:
            self._entries.remove(key)
            return
        packed = self._packed(value, tags)
        self._core.set(key, packed, seconds)

    def add(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> bool:
        """Store a value if there is none; True when it was stored."""
        seconds = self._seconds(ttl)
        if seconds is not None and seconds <= 0:
            return key not in self
        packed = self._packed(value, tags)
        return self._entries.add(key, packed, seconds)

    def replace(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> bool:
        """Store a value if there is one already; True when it was stored."""
        if key not in self:
            return False
        seconds = self._seconds(ttl)
        if seconds is not None and seconds <= 0:
            return self.delete(key)
        return self._core.replace(key, self._packed(value, tags), seconds)

    def _packed(self, value: Any, tags: Iterable[str]) -> Any:
        if tags or not self._entries.format.is_plain:
            return self._entries.pack(value, tagging.names(tags))
        return value

    def delete(self, key: Key) -> bool:
        """Remove a key; True when it was there."""
        return self._entries.remove(key)

    def __contains__(self, key: Key) -> bool:
        there = self._core.probe(key)
        return self._entries.left(key) is not MISSING if there is None else there

    def get_or_set(
        self,
        key: Key,
        default: Any,
        ttl: TTL = USE_DEFAULT,
        *,
        lock: bool = True,
        wait: float | None = 5.0,
        stale: float = 0,
        stale_on_error: float = 0,
        early: float = 0,
        tags: Iterable[str] = (),
    ) -> Any:
        """The value; where there is none, that of ``default`` (called, if it is callable), stored.

        :param lock: one caller in all processes computes, the others wait for its result.
        :param wait: for at most so many seconds, then they compute themselves; None = no limit.
            When the one that computes dies, another takes over at once.
        :param stale: for so many seconds after its ttl a value is still given to all but the one
            caller that computes anew.
        :param stale_on_error: for so many seconds after its ttl a value is still given when the
            function raises.
        :param early: 1.0 lets a value be computed anew, by one caller, shortly before its ttl is
            over, the earlier the longer it takes (XFetch, Vattani et al., VLDB 2015); 0 never.
        :param tags: as in :meth:`set`. Invalidated during the computation, they spoil its result,
            as deleting the key and clearing the cache do: it is given, and not stored.

        What the function raises reaches the caller and those who wait for it, and nothing is
        stored. None is a value. One that can't be read, its class being gone, is as good as absent.
        Raises DeadlockError when the function asks for the same key, itself or in tasks and
        ``asyncio.to_thread``. Another thread that it waits for (a ``ThreadPoolExecutor``) looks
        like any other caller, and waits until ``wait`` is over.
        """
        found = self.look(key)
        if found is not MISSING and type(found) is not Named:
            return found
        call = self.fill(
            key,
            ttl,
            found=found,
            lock=lock,
            wait=wait,
            stale=stale,
            stale_on_error=stale_on_error,
            early=early,
            tags=tags,
        )
        return filling.get_or_set(call, default)

    def look(self, key: Key) -> Any:
        """A value, an entry that has more in it (`Named`), or MISSING; counted as a read."""
        try:
            return self._core.get(key, MISSING)
        except SerializationError as error:
            return self._entries.unreadable(key, error)

    def fill(self, key: Key, ttl: TTL = USE_DEFAULT, **options: Any) -> filling.Fill:
        """One call of :meth:`get_or_set`, for who drives it (threads, event loops)."""
        seconds = checks.check_ttl(self._seconds(ttl))  # before the function is called
        return filling.Fill(self._entries, key, seconds, **options)

    def incr(self, key: Key, delta: int = 1) -> int:
        """Add to an int, atomically, keeping its expiry; the sum. Goes beyond 64 bits.

        Raises ValueError when the key is missing, TypeError when its value isn't an int.
        """
        delta = checks.integer(delta, "delta")
        result: int | bool | None = True  # beyond 64 bits
        if -(2**63) <= delta < 2**63:
            result = self._core.increment(key, delta)
        if isinstance(result, bool):
            result = self._entries.add_to(key, delta)
        if result is None:
            raise ValueError(f"key {key!r} not found")
        return result

    def decr(self, key: Key, delta: int = 1) -> int:
        """Subtract from an int; see :meth:`incr`."""
        return self.incr(key, -checks.integer(delta, "delta"))

    # ------------------------------------------------------------------ expiry

    def touch(self, key: Key, ttl: TTL = USE_DEFAULT) -> bool:
        """Give a key a new ttl from now; True when it was there.

        The time in which :meth:`get_or_set` may give it stale comes after that, as long as before.
        """
        seconds = self._seconds(ttl)
        if seconds is not None and seconds <= 0:
            return self.delete(key)
        return self._entries.touch(key, seconds)

    def ttl(self, key: Key) -> float | None:
        """Seconds left; None = no expiry. Raises KeyError when the key is missing.

        Exact to a second up to two years, and to one part in fifty million beyond: an engine may
        keep expiries rounded.
        """
        left: float | None = self._entries.left(key)
        if left is MISSING:
            raise KeyError(key)
        return left

    def expire(self, key: Key, seconds: float) -> bool:
        """Let a key expire in ``seconds``; True when it was there."""
        return self.touch(key, seconds)

    def expire_at(self, key: Key, when: float | datetime) -> bool:
        """Let a key expire at a Unix time in seconds, or a datetime (local time, if it names no
        zone); True when it was there."""
        return self.touch(key, checks.moment(when, "when") - time.time())

    def persist(self, key: Key) -> bool:
        """Let a key never expire; True when it was there."""
        return self._entries.touch(key, None)

    # ------------------------------------------------------------------ many keys

    def get_many(self, keys: Iterable[Key]) -> dict[Any, Any]:
        """Those of the keys that are there, with their values."""
        if not isinstance(keys, Iterable):
            raise TypeError(f"keys is an iterable of keys, not {type(keys).__name__}")
        found = self._core.get_many(keys)
        packed = [key for key, value in found.items() if type(value) is Named]
        for key in packed:
            value = self._entries.open(key, found[key], MISSING)
            if value is MISSING:
                del found[key]
            else:
                found[key] = value
        return found

    def set_many(
        self, mapping: Mapping[Any, Any], ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> list[Any]:
        """Store several values; the keys that couldn't be stored for want of memory or size.

        Where a key or value can't be written at all (TypeError, SerializationError), none is.
        """
        checks.mapping(mapping, "mapping")
        seconds = self._seconds(ttl)
        if seconds is None or seconds > 0:
            if tags or not self.is_plain:
                names = tagging.names(tags)
                mapping = {key: self._entries.pack(mapping[key], names) for key in mapping}
            return self._core.set_many(mapping, seconds)
        failed = []
        checks.keys(mapping)  # before anything is stored
        for key, value in mapping.items():
            try:
                self.set(key, value, ttl, tags=tags)
            except ConfigurationError:
                raise
            except CeleriacError:
                failed.append(key)
        return failed

    def check_values(self, values: Iterable[Any]) -> None:
        """Raises SerializationError where one of the values can't be written."""
        for value in values:
            _core.pack(self._packed(value, ()), False)

    def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove several keys; how many were there."""
        return sum(map(self.delete, checks.keys(keys)))

    def invalidate(self, *tags: str) -> None:
        """Let all entries with one of these tags be absent, at once, whatever their number."""
        self._entries.tags.invalidate(tagging.names(tags))

    def tags_of(self, key: Key) -> tuple[str, ...]:
        """The tags of an entry; none when it is missing."""
        return self._entries.tags_of(key)

    # ------------------------------------------------------------------ patterns

    def iter_keys(self, pattern: str = "*", itersize: int = 1000) -> Iterator[Any]:
        """The keys that match a glob (``product:*``, ``?``, ``[a-f]``), some at a time.

        Nothing is locked in between: a key that is there all the time comes; others may. Keys that
        are no UTF-8 are bytes. ``itersize`` is about how many keys are looked at in one step.
        """
        return itertools.chain.from_iterable(self.iter_steps(pattern, itersize))

    def iter_steps(self, pattern: str = "*", itersize: int = 1000) -> Iterator[list[Any]]:
        """The same, step by step: the keys of each, if any."""
        matches = compiled(pattern).matches
        steps = self._walk(itersize)
        return ([key for key in step if matches(key)] for step in steps)

    def _walk(self, itersize: int, *, absent: bool = False) -> Iterator[dict[Any, int]]:
        return self._steps(checks.whole(itersize, "itersize", 1), absent)

    def _steps(self, itersize: int, absent: bool) -> Iterator[dict[Any, int]]:
        """The keys that are there, with the bytes of key and value as they are stored; with
        ``absent`` also those of entries that are as good as absent."""
        cursor: tuple[int, int, int] | None = (0, 0, 0)
        last: set[Any] = set()
        while cursor is not None:
            part = cursor[0] >> 32 & 0xFFFF
            cursor, keys, packed, sizes = self._core.scan(cursor, itersize)
            step = {key: size for key, size in zip(keys, sizes, strict=True) if key not in last}
            for key in packed:
                if not absent and self._entries.left(key) is MISSING:
                    step.pop(key, None)
            # Keys come twice only while the table that they stand in is replaced.
            last = last.union(step) if cursor and cursor[0] >> 32 & 0xFFFF == part else set(step)
            yield step

    def keys(self, pattern: str = "*") -> list[Any]:
        """All keys that match a glob; see :meth:`iter_keys`."""
        return list(dict.fromkeys(self.iter_keys(pattern)))

    def delete_pattern(self, pattern: str, itersize: int = 1000) -> int:
        """Remove all keys that match a glob; how many. Bounded work at a time, no lock."""
        matches = compiled(pattern).matches
        self._spoil_flights(lambda name, key: name == self.name and matches(key))
        steps = self._walk(itersize, absent=True)  # what is stale as well: it may still be given
        return sum(self.delete(key) for step in steps for key in step if matches(key))

    # ------------------------------------------------------------------ the whole

    def clear(self) -> None:
        """Remove all entries of this namespace at once, whatever their number."""
        if not self._clear_alone():
            self.delete_pattern("*")

    def _clear_alone(self) -> bool:
        """The same; False, and nothing is removed, where other caches' entries would go too (a
        cache with an ``overflow``, see :meth:`Store.cache`)."""
        self._spoil_flights(lambda name, key: name == self.name)
        return self._core.clear()

    def _spoil_flights(self, wanted: Callable[[str, bytes], bool]) -> None:
        """What is being computed for such caches' names and keys isn't stored."""
        self._entries.shared.flights.spoil_those(wanted)

    def cull(self, n: int) -> int:
        """Evict ``n`` entries of this namespace, about the oldest; how many went."""
        n = checks.whole(n, "n")
        return self._core.cull(n) if n > 0 else 0

    def __len__(self) -> int:
        return self._core.entries()

    def stats(self) -> CacheStats:
        """Statistics over all processes."""
        return CacheStats(*self._core.counts())

    def stats_by_prefix(self, sep: str = ":", most: int = 100) -> dict[str, PrefixStats]:
        """Statistics by what stands in the keys before ``sep``, the prefixes with the most bytes
        first. Keys without ``sep`` are under ``""``, all prefixes beyond ``most`` in ``"(other)"``,
        one that is no UTF-8 under the ``repr`` of its bytes.

        What all keys begin with (``lead`` of :meth:`Store.cache`; KEY_PREFIX and version where the
        Django backend makes them) isn't looked at.

        Entries and bytes are found by a walk over the keys, as in :meth:`iter_keys`. Hits, misses,
        sets, deletes, evictions and expirations are counted in the arena, since the cache got its
        name, by all processes, and sum up to those of :meth:`stats`: but by ``":"`` only, so they
        are None for another ``sep``. The arena has rows for 80 prefixes of up to 40 bytes, of which
        a cache takes 48 or little more as they come: the counts of all others are in
        ``"(other)"``, and None in rows of their own.
        """
        lead, rows = self._core.prefixes()
        return by_prefix(self._walk(1000), sep, most, lead, rows)
