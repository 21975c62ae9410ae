"""A storage for the package `limits`, which flask-limiter, slowapi and others count with.

::

    import celeriac.limits_storage                      # makes the schemes known to `limits`
    Limiter(get_remote_address, app=app, storage_uri="celeriac+shm://app")

``celeriac+shm://NAME`` and ``celeriac+file:///DIRECTORY``, with the options of `celeriac.connect`
in the URL or as storage options; ``async+`` before it for `limits.aio`. Counts are those of all
processes of the store, in its table ``celeriac.limits``: no cache's pressure evicts them, and they
are gone once their window is.

A fixed window is an int, added to in one step. What else a key has is changed by compare-and-set,
so that a process may be killed anywhere:

- moving window: times and running sums of the hits of the last window, one for each of its
  ``TICKS`` ticks. Hits of one tick count as if they came with its last: none stops counting early,
  and none more than 1/``TICKS`` of the window late.
- sliding window: (begin of the window, hits of the one before, hits of it); it begins with a key's
  first hit, as in `limits`' own Redis storage.

Times are the monotonic clock's, which all processes of a host share and nobody sets.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from functools import cached_property
from math import floor
from struct import Struct
from typing import Any, Final

import limits.aio.storage as aio_base
import limits.storage as base

from celeriac.errors import CeleriacError
from celeriac.store import Store, connect
from celeriac.table import Table
from celeriac.url import parse_url

__all__ = ["AsyncCeleriacStorage", "CeleriacStorage"]

TABLE: Final = "celeriac.limits"
TICKS: Final = 1024
_ENTRY: Final = Struct("=dd")  # time of the last hit in a tick, and all hits until then
_SCHEMES: Final = ("celeriac+shm", "celeriac+file")

Sliding = tuple[float, int, int]


class Counters:
    """What both storages do. Nothing of it waits: a loop may call it as well."""

    def __init__(self, uri: str, options: dict[str, Any]) -> None:
        self._url = uri.removeprefix("async+").removeprefix("celeriac+")
        self._options = options
        parse_url(self._url, **options)  # what is wrong is said here; a store that is away, later

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._url, self._options)

    @cached_property
    def store(self) -> Store:
        """The store, opened when it is first used."""
        return connect(self._url, **self._options)

    @cached_property
    def table(self) -> Table:
        """The table of all counts."""
        return self.store.table(TABLE)

    def check(self) -> bool:
        """Whether the store answers."""
        try:
            return "" in self.table or True
        except CeleriacError:
            return False

    def reset(self) -> int:
        """Forgets all; how many keys there were."""
        count = len(self.table)
        self.table.clear()
        return count

    def clear(self, key: str) -> None:
        """Forgets a key's fixed and moving window."""
        self.table.delete(f"f{key}")
        self.table.delete(f"m{key}")

    # ---- fixed window

    def incr(self, key: str, expiry: float, amount: int) -> int:
        """The count with `amount` more; a key's first begins the window."""
        table, name = self.table, f"f{key}"
        while True:
            try:
                return table.incr(name, amount)
            except ValueError:
                if table.add(name, amount, expiry):
                    return amount

    def get(self, key: str) -> int:
        """The count of the fixed window; 0 when there is none."""
        return int(self.table.get(f"f{key}", 0))

    def get_expiry(self, key: str) -> float:
        """When the fixed window ends, as a time of day; now when there is none."""
        try:
            return time.time() + (self.table.ttl(f"f{key}") or 0.0)
        except KeyError:
            return time.time()

    # ---- moving window

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int) -> bool:
        """Takes `amount` if no more than `limit` are in the window then."""
        if amount > limit:
            return False
        table, name = self.table, f"m{key}"
        while True:
            log, version = table.get_versioned(name)
            now = time.monotonic()
            data, first, before, total = _in_window(log or b"", now - expiry)
            if total - before + amount > limit:
                return False
            tick = expiry / TICKS
            if first < len(data) and now // tick == _ENTRY.unpack(data[-_ENTRY.size :])[0] // tick:
                data = data[: -_ENTRY.size]
            # The entry before the window stays: its sum is what those in it are counted from.
            kept = data[max(first - _ENTRY.size, 0) :] + _ENTRY.pack(now, total + amount)
            if table.compare_and_set(name, version, kept, expiry):
                return True

    def get_moving_window(self, key: str, expiry: int) -> tuple[float, int]:
        """When the oldest hit of the window was, as a time of day, and how many there are."""
        now = time.monotonic()
        data, first, before, total = _in_window(self.table.get(f"m{key}", b""), now - expiry)
        if first == len(data):
            return time.time(), 0
        age = now - _ENTRY.unpack_from(data, first)[0]
        return time.time() - age, int(total - before)

    # ---- sliding window counter

    def acquire_sliding(self, key: str, limit: int, expiry: int, amount: int) -> bool:
        """Takes `amount` if the weighted count allows it."""
        if amount > limit:
            return False
        table, name = self.table, f"s{key}"
        while True:
            stored, version = table.get_versioned(name)
            now = time.monotonic()
            begin, previous, current = _window(stored, now, expiry)
            weighted = previous * (begin + expiry - now) / expiry + current
            if floor(weighted) + amount > limit:
                return False
            value = (begin, previous, current + amount)
            if table.compare_and_set(name, version, value, begin + 2 * expiry - now):
                return True

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Count and seconds left of the window before, and of this one."""
        now = time.monotonic()
        stored = self.table.get(f"s{key}")
        begin, previous, current = _window(stored, now, expiry)
        if not (previous or current):
            return 0, 0.0, 0, 0.0
        left = begin + expiry - now
        return previous, left if previous else 0.0, current, left + expiry

    def clear_sliding_window(self, key: str) -> None:
        """Forgets a key's sliding window."""
        self.table.delete(f"s{key}")


def _in_window(log: bytes, since: float) -> tuple[bytes, int, float, float]:
    """The log, where in it the window begins, and the sums of hits before that and at the end."""
    values = memoryview(log).cast("d") if log else memoryview(b"").cast("B")
    count = len(values) // 2
    at = bisect_left(range(count), since, key=lambda i: values[2 * i])
    before = values[2 * at - 1] if at else 0.0
    return log, at * _ENTRY.size, before, values[-1] if count else 0.0


def _window(stored: Sliding | None, now: float, expiry: int) -> Sliding:
    """The window that `now` is in."""
    if stored is None:
        return now, 0, 0
    begin, previous, current = stored
    windows = floor((now - begin) / expiry)
    if windows <= 0:
        return begin, previous, current
    return (begin + expiry, current, 0) if windows == 1 else (now, 0, 0)


class CeleriacStorage(base.Storage, base.MovingWindowSupport, base.SlidingWindowCounterSupport):
    """For `limits.strategies`. Thread-safe, fork-safe; pickles as its URL and options."""

    STORAGE_SCHEME = list(_SCHEMES)

    def __init__(self, uri: str, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.counters = Counters(uri, options)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What `wrap_exceptions` wraps."""
        return CeleriacError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """See `limits.storage.Storage`, also for the following."""
        return self.counters.incr(key, expiry, amount)

    def get(self, key: str) -> int:
        return self.counters.get(key)

    def get_expiry(self, key: str) -> float:
        return self.counters.get_expiry(key)

    def check(self) -> bool:
        return self.counters.check()

    def reset(self) -> int:
        return self.counters.reset()

    def clear(self, key: str) -> None:
        self.counters.clear(key)

    def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return self.counters.acquire_entry(key, limit, expiry, amount)

    def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        return self.counters.get_moving_window(key, expiry)

    def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return self.counters.acquire_sliding(key, limit, expiry, amount)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return self.counters.get_sliding_window(key, expiry)

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self.counters.clear_sliding_window(key)


class AsyncCeleriacStorage(
    aio_base.Storage, aio_base.MovingWindowSupport, aio_base.SlidingWindowCounterSupport
):
    """For `limits.aio.strategies`: the same counts, and no call that waits."""

    STORAGE_SCHEME = [f"async+{scheme}" for scheme in _SCHEMES]

    def __init__(self, uri: str, wrap_exceptions: bool = False, **options: Any) -> None:
        super().__init__(uri, wrap_exceptions=wrap_exceptions)
        self.counters = Counters(uri, options)

    @property
    def base_exceptions(self) -> type[Exception]:
        """What `wrap_exceptions` wraps."""
        return CeleriacError

    async def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """See `limits.aio.storage.Storage`, also for the following."""
        return self.counters.incr(key, expiry, amount)

    async def get(self, key: str) -> int:
        return self.counters.get(key)

    async def get_expiry(self, key: str) -> float:
        return self.counters.get_expiry(key)

    async def check(self) -> bool:
        return self.counters.check()

    async def reset(self) -> int:
        return self.counters.reset()

    async def clear(self, key: str) -> None:
        self.counters.clear(key)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return self.counters.acquire_entry(key, limit, expiry, amount)

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:
        return self.counters.get_moving_window(key, expiry)

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        return self.counters.acquire_sliding(key, limit, expiry, amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        return self.counters.get_sliding_window(key, expiry)

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        self.counters.clear_sliding_window(key)
