"""Caches and tables of a store."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, final

from celeriac._core import Cache as CoreCache
from celeriac.errors import (
    CeleriacError,
    ConfigurationError,
    NotEnoughMemory,
    SerializationError,
)

Key = str | bytes
DEFAULT_TTL: Final = 300.0


@final
class _UseDefault:
    """The type of a ttl that wasn't given."""

    def __repr__(self) -> str:
        return "<default ttl>"


USE_DEFAULT: Final = _UseDefault()
TTL = float | int | None | _UseDefault


def check_ttl(ttl: object, what: str = "ttl") -> None:
    """Raises TypeError or ValueError for what isn't a number of seconds or None."""
    if ttl is None:
        return
    if not isinstance(ttl, (int, float)) and not hasattr(ttl, "__float__"):
        raise TypeError(f"{what} is a number of seconds or None, not {type(ttl).__name__}")
    if ttl != ttl:
        raise ValueError(f"{what}={ttl!r}: a number of seconds")


class CacheStats(NamedTuple):
    """Statistics of one namespace, over all processes, since the store was made."""

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


@contextmanager
def _full(what: str) -> Iterator[None]:
    """Says which structure was full."""
    try:
        yield
    except NotEnoughMemory as error:
        raise NotEnoughMemory(f"{what}: {error}") from None


class Cache:
    """A namespace of a store: keys to values, bounded by the store's memory, shared by every
    process of the host.

    Keys are ``str`` (taken as UTF-8) or ``bytes``, at most 65,535 bytes. Values are any object:
    plain data (``None``, ``bool``, ``int``, ``float``, ``str``, ``bytes``, ``list``, ``tuple``,
    ``dict``, sets, dates and times, ``timedelta``, ``Decimal``, ``UUID``, of exactly these types)
    are stored in a form of their own, which runs no code when it is read; everything else, and
    what holds a container twice, is pickled. A ``ttl`` is in seconds; ``None`` means no expiry,
    zero or less means expired at once; not given, the cache's own.

    Thread-safe, fork-safe. Crash-safe: a process that dies while writing leaves the entry old, new
    or absent. Readers take no lock. Errors: :class:`~celeriac.ValueTooLarge`,
    :class:`~celeriac.NotEnoughMemory`, :class:`~celeriac.SerializationError`,
    :class:`~celeriac.ConfigurationError` (the store is closed).
    """

    __slots__ = ("_core", "max_entries", "name", "ttl_default")

    def __init__(
        self, core: CoreCache, name: str, ttl: float | None, max_entries: int | None = None
    ) -> None:
        self._core = core
        self.name = name
        self.ttl_default = ttl
        self.max_entries = max_entries
        if max_entries is not None:
            core.limit(min(max_entries, 2**32 - 1))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _seconds(self, ttl: TTL) -> float | None:
        return self.ttl_default if isinstance(ttl, _UseDefault) else ttl

    # ------------------------------------------------------------------ one key

    def get(self, key: Key, default: Any = None) -> Any:
        """The value, or ``default``."""
        return self._core.get(key, default)

    def set(self, key: Key, value: Any, ttl: TTL = USE_DEFAULT) -> None:
        """Store a value."""
        seconds = self._seconds(ttl)
        if seconds is not None and seconds <= 0:
            self._core.delete(key)
            return
        self._core.set(key, value, seconds)

    def add(self, key: Key, value: Any, ttl: TTL = USE_DEFAULT) -> bool:
        """Store a value if there is none; True when it was stored."""
        seconds = self._seconds(ttl)
        if seconds is not None and seconds <= 0:
            return not self._core.contains(key)
        return self._core.add(key, value, seconds)

    def replace(self, key: Key, value: Any, ttl: TTL = USE_DEFAULT) -> bool:
        """Store a value if there is one already; True when it was stored."""
        seconds = self._seconds(ttl)
        if seconds is not None and seconds <= 0:
            return self._core.delete(key)
        return self._core.replace(key, value, seconds)

    def delete(self, key: Key) -> bool:
        """Remove a key; True when it was there."""
        return self._core.delete(key)

    def __contains__(self, key: Key) -> bool:
        return self._core.contains(key)

    def incr(self, key: Key, delta: int = 1) -> int:
        """Add to an int, atomically, keeping its expiry; the sum. Goes beyond 64 bits.

        Raises ValueError when the key is missing, TypeError when its value isn't an int.
        """
        try:
            delta = operator.index(delta)
        except TypeError:
            raise TypeError(f"delta is an int, not {type(delta).__name__}") from None
        if -(2**63) <= delta < 2**63:
            result = self._core.increment(key, delta)
        else:
            result = True
        if result is None:
            raise ValueError(f"key {key!r} not found")
        if result is False:
            raise TypeError(f"the value of key {key!r} is not an int")
        if result is not True:
            return result
        return self._incr_big(key, delta)

    def _incr_big(self, key: Key, delta: int) -> int:
        while True:
            value, version = self._core.get_versioned(key)
            if version == 0:
                raise ValueError(f"key {key!r} not found")
            if type(value) is not int:
                raise TypeError(f"the value of key {key!r} is not an int")
            left = self._core.ttl(key)
            if self._core.compare_and_set(key, version, value + delta, left):
                return value + delta

    def decr(self, key: Key, delta: int = 1) -> int:
        """Subtract from an int; see :meth:`incr`."""
        return self.incr(key, -delta)

    # ------------------------------------------------------------------ expiry

    def touch(self, key: Key, ttl: TTL = USE_DEFAULT) -> bool:
        """Give a key a new ttl from now; True when it was there."""
        seconds = self._seconds(ttl)
        if seconds is not None and seconds <= 0:
            return self._core.delete(key)
        return self._core.touch(key, seconds)

    def ttl(self, key: Key) -> float | None:
        """Seconds left; None = no expiry. Raises KeyError when the key is missing."""
        left = self._core.ttl(key)
        if left is not None and left < 0:
            raise KeyError(key)
        return left

    def expire(self, key: Key, seconds: float) -> bool:
        """Let a key expire in ``seconds``; True when it was there."""
        return self.touch(key, seconds)

    def persist(self, key: Key) -> bool:
        """Let a key never expire; True when it was there."""
        return self._core.touch(key, None)

    # ------------------------------------------------------------------ many keys

    def get_many(self, keys: Iterable[Key]) -> dict[Any, Any]:
        """Those of the keys that are there, with their values."""
        return self._core.get_many(keys)

    def set_many(self, mapping: Mapping[Any, Any], ttl: TTL = USE_DEFAULT) -> list[Any]:
        """Store several values; the keys that couldn't be stored for want of memory or size."""
        seconds = self._seconds(ttl)
        if self.max_entries is None and (seconds is None or seconds > 0):
            return self._core.set_many(mapping, seconds)
        failed = []
        for key in mapping:
            if not isinstance(key, (str, bytes)):  # before anything is stored
                raise TypeError(f"a key is str or bytes, not {type(key).__name__}")
        for key, value in mapping.items():
            try:
                self.set(key, value, ttl)
            except (ConfigurationError, SerializationError):
                raise
            except CeleriacError:
                failed.append(key)
        return failed

    def delete_many(self, keys: Iterable[Key]) -> int:
        """Remove several keys; how many were there."""
        return sum(self._core.delete(key) for key in keys)

    # ------------------------------------------------------------------ the whole

    def clear(self) -> None:
        """Remove all entries of this namespace at once, whatever their number."""
        self._core.clear()

    def cull(self, n: int) -> int:
        """Evict ``n`` entries of this namespace, about the oldest; how many went."""
        n = operator.index(n)
        return self._core.cull(n) if n > 0 else 0

    def __len__(self) -> int:
        return self._core.entries()

    def stats(self) -> CacheStats:
        """Statistics over all processes."""
        return CacheStats(*self._core.counts())


class Table(Cache):
    """A namespace whose entries are never evicted, for small shared state: full means
    :class:`~celeriac.NotEnoughMemory`. Its keys can be compared-and-set and waited for.
    """

    __slots__ = ()

    def set(self, key: Key, value: Any, ttl: TTL = USE_DEFAULT) -> None:
        """Store a value."""
        with _full(f"table {self.name!r}"):
            super().set(key, value, ttl)

    def add(self, key: Key, value: Any, ttl: TTL = USE_DEFAULT) -> bool:
        """Store a value if there is none; True when it was stored."""
        with _full(f"table {self.name!r}"):
            return super().add(key, value, ttl)

    def replace(self, key: Key, value: Any, ttl: TTL = USE_DEFAULT) -> bool:
        """Store a value if there is one already; True when it was stored."""
        with _full(f"table {self.name!r}"):
            return super().replace(key, value, ttl)

    def get_versioned(self, key: Key) -> tuple[Any, int]:
        """The value and its version, or ``(None, 0)`` when the key is missing."""
        return self._core.get_versioned(key)

    def compare_and_set(self, key: Key, version: int, value: Any, ttl: TTL = USE_DEFAULT) -> bool:
        """Store a value if the key still has ``version`` (0: is missing); True when stored."""
        with _full(f"table {self.name!r}"):
            return self._core.compare_and_set(key, version, value, self._seconds(ttl))

    def items(self) -> list[tuple[Any, Any]]:
        """All entries: a moment's view of each, not of the whole."""
        return self._core.items()

    def change_count(self, key: Key) -> int:
        """A number that changes whenever the key does (and now and then when another does)."""
        return self._core.change_count(key)

    def wait_for_change(self, key: Key, seen: int, timeout: float | None = None) -> bool:
        """Sleep until :meth:`change_count` isn't ``seen`` any more; False after ``timeout`` s.

        Woken by the change itself: there is no polling. Releases the interpreter lock.
        """
        return self._core.wait_for_change(key, seen, timeout)
