"""celeriac for asyncio: the same names, with ``await`` where a call can block.

    store = await celeriac.aio.connect("shm://app")
    cache = store.cache("prices")
    await cache.set("product:7", {"price": 12})
    await cache.get_or_set("product:8", fetch_product, 60, stale=30)

On a store of this host a call takes about a microsecond and waits for nothing: it is a plain call
behind ``await``, on the loop's thread. What waits (`get_or_set` for another's computation, a queue
for a message) never blocks the loop, and walks over many keys let others run between their steps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

from celeriac import aio_fill
from celeriac import store as sync
from celeriac.cache import TTL, USE_DEFAULT, Cache, CacheStats, Key
from celeriac.prefix_stats import PrefixStats
from celeriac.queue import Counts, Message, Queue, Waiter

_Self = TypeVar("_Self", bound="_Handle")


class _Handle:
    """A handle may be awaited, which gives the handle: making one doesn't block on this host."""

    def __await__(self: _Self) -> Generator[Any, None, _Self]:
        yield from asyncio.sleep(0).__await__()
        return self


class AsyncCache(_Handle):
    """:class:`celeriac.Cache` for asyncio; see there for what the calls do.

    ``in`` and ``len`` are what they are there. Tasks and threads may share it.
    """

    def __init__(self, cache: Cache) -> None:
        self.sync = cache
        """The cache behind it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sync.name!r}>"

    def __contains__(self, key: Key) -> bool:
        return key in self.sync

    def __len__(self) -> int:
        return len(self.sync)

    async def get(self, key: Key, default: Any = None) -> Any:
        """See Cache.get."""
        return self.sync.get(key, default)

    async def set(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> None:
        """See Cache.set."""
        self.sync.set(key, value, ttl, tags=tags)

    async def add(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> bool:
        """See Cache.add."""
        return self.sync.add(key, value, ttl, tags=tags)

    async def replace(
        self, key: Key, value: Any, ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> bool:
        """See Cache.replace."""
        return self.sync.replace(key, value, ttl, tags=tags)

    async def delete(self, key: Key) -> bool:
        """See Cache.delete."""
        return self.sync.delete(key)

    async def touch(self, key: Key, ttl: TTL = USE_DEFAULT) -> bool:
        """See Cache.touch."""
        return self.sync.touch(key, ttl)

    async def get_many(self, keys: Iterable[Key]) -> dict[Any, Any]:
        """See Cache.get_many."""
        return self.sync.get_many(keys)

    async def set_many(
        self, mapping: Mapping[Any, Any], ttl: TTL = USE_DEFAULT, *, tags: Iterable[str] = ()
    ) -> list[Any]:
        """See Cache.set_many."""
        return self.sync.set_many(mapping, ttl, tags=tags)

    async def delete_many(self, keys: Iterable[Key]) -> int:
        """See Cache.delete_many."""
        return self.sync.delete_many(keys)

    async def incr(self, key: Key, delta: int = 1) -> int:
        """See Cache.incr."""
        return self.sync.incr(key, delta)

    async def decr(self, key: Key, delta: int = 1) -> int:
        """See Cache.decr."""
        return self.sync.decr(key, delta)

    async def ttl(self, key: Key) -> float | None:
        """See Cache.ttl."""
        return self.sync.ttl(key)

    async def expire(self, key: Key, seconds: float) -> bool:
        """See Cache.expire."""
        return self.sync.expire(key, seconds)

    async def expire_at(self, key: Key, when: float | datetime) -> bool:
        """See Cache.expire_at."""
        return self.sync.expire_at(key, when)

    async def persist(self, key: Key) -> bool:
        """See Cache.persist."""
        return self.sync.persist(key)

    async def get_or_set(
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
        """See Cache.get_or_set. ``default`` may also be an async function or anything to await; a
        plain function runs in a thread, since it may block."""
        call = self.sync.fill(
            key,
            ttl,
            lock=lock,
            wait=wait,
            stale=stale,
            stale_on_error=stale_on_error,
            early=early,
            tags=tags,
        )
        return await aio_fill.get_or_set(call, default)

    async def invalidate(self, *tags: str) -> None:
        """See Cache.invalidate."""
        self.sync.invalidate(*tags)

    async def tags_of(self, key: Key) -> tuple[str, ...]:
        """See Cache.tags_of."""
        return self.sync.tags_of(key)

    async def iter_keys(self, pattern: str = "*", itersize: int = 1000) -> AsyncIterator[Any]:
        """See Cache.iter_keys. Other tasks run in between."""
        for keys in self.sync.iter_steps(pattern, itersize):
            for key in keys:
                yield key
            await asyncio.sleep(0)

    async def keys(self, pattern: str = "*") -> list[Any]:
        """See Cache.keys."""
        return list({key: None async for key in self.iter_keys(pattern)})

    async def delete_pattern(self, pattern: str, itersize: int = 1000) -> int:
        """See Cache.delete_pattern."""
        removed = 0
        async for key in self.iter_keys(pattern, itersize):
            removed += self.sync.delete(key)
        return removed

    async def stats_by_prefix(self, sep: str = ":", most: int = 100) -> dict[str, PrefixStats]:
        """See Cache.stats_by_prefix; in a thread, for it walks over all keys."""
        return await asyncio.to_thread(self.sync.stats_by_prefix, sep, most)

    async def cull(self, n: int) -> int:
        """See Cache.cull."""
        return self.sync.cull(n)

    async def clear(self) -> None:
        """See Cache.clear."""
        self.sync.clear()

    async def stats(self) -> CacheStats:
        """See Cache.stats."""
        return self.sync.stats()


class AsyncQueue(_Handle):
    """:class:`celeriac.Queue` for asyncio; see there for what the calls do."""

    def __init__(self, store: sync.Store, queue: Queue) -> None:
        self.sync = queue
        """The queue behind it."""
        self._store = store

    async def put(self, body: bytes | str, **options: Any) -> str:
        """See Queue.put."""
        return self.sync.put(body, **options)

    async def put_many(self, bodies: Iterable[bytes | str], **options: Any) -> list[str]:
        """See Queue.put_many."""
        return self.sync.put_many(bodies, **options)

    async def get(self, timeout: float | None = None) -> Message | None:
        """See Queue.get. Waits on the loop; a task that is cancelled has taken no message."""
        message = self.sync.get(0)
        if message is not None or (timeout is not None and timeout <= 0):
            return message
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = self._store.waiter()
        try:
            waiter.watch(self.sync)
            return await self._wait(waiter, deadline)
        finally:
            waiter.disarm()
            waiter.close()

    async def _wait(self, waiter: Waiter, deadline: float | None) -> Message | None:
        loop = asyncio.get_running_loop()
        while True:
            parked = waiter.arm()
            message = self.sync.get(0)
            if message is not None:
                return message
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            if not parked:
                await asyncio.sleep(0)
                continue
            readable = asyncio.Event()
            loop.add_reader(waiter.fileno(), readable.set)
            try:
                await asyncio.wait_for(readable.wait(), left)
            except asyncio.TimeoutError:
                return self.sync.get(0)
            finally:
                loop.remove_reader(waiter.fileno())
            waiter.drain()

    async def get_many(self, n: int, timeout: float | None = 0) -> list[Message]:
        """See Queue.get_many."""
        first = await self.get(timeout)
        if first is None:
            return []
        return [first, *self.sync.get_many(n - 1, 0)] if n > 1 else [first]

    async def counts(self) -> Counts:
        """See Queue.counts."""
        return self.sync.counts()

    async def purge(self) -> int:
        """See Queue.purge."""
        return self.sync.purge()

    async def delete(self) -> bool:
        """See Queue.delete."""
        return self.sync.delete()


class AsyncStore(_Handle):
    """:class:`celeriac.Store` for asyncio; made by :func:`connect`."""

    def __init__(self, store: sync.Store) -> None:
        self.sync = store
        """The store behind it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    async def __aenter__(self) -> AsyncStore:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.sync.close()

    @property
    def url(self) -> str:
        """See Store.url."""
        return self.sync.url

    @property
    def closed(self) -> bool:
        """See Store.closed."""
        return self.sync.closed

    def cache(self, namespace: str = "default", **options: Any) -> AsyncCache:
        """See Store.cache."""
        return AsyncCache(self.sync.cache(namespace, **options))

    def queue(self, name: str, **options: Any) -> AsyncQueue:
        """See Store.queue."""
        return AsyncQueue(self.sync, self.sync.queue(name, **options))

    async def stats(self) -> dict[str, Any]:
        """See Store.stats."""
        return self.sync.stats()

    async def recover(self) -> int:
        """See Store.recover."""
        return self.sync.recover()

    async def close(self) -> None:
        """See Store.close."""
        self.sync.close()

    async def destroy(self, force: bool = False) -> None:
        """See Store.destroy."""
        await asyncio.to_thread(self.sync.destroy, force)


def connect(url: str, **options: Any) -> AsyncStore:
    """Open a store as :func:`celeriac.connect` does; to be awaited, or for ``async with``."""
    return AsyncStore(sync.connect(url, **options))
