"""celeriac for asyncio: the same names, with ``await`` where a call can block.

    store = await celeriac.aio.connect("shm://app")
    cache = store.cache("prices")
    await cache.set("product:7", {"price": 12})
    await cache.get_or_set("product:8", fetch_product, 60, stale=30)

On a store of this host a call takes about a microsecond and waits for nothing: it is a plain call
behind ``await``, on the loop's thread. What waits (`get_or_set` for another's computation, a queue
for a message, a table for a change) never blocks the loop, and walks over many keys let others run
between their steps. What waits for a disk, as every change of a queue does in a ``file://`` store
with ``durability=always``, is done in a thread; who is cancelled meanwhile has done it all the
same. A message's `ack` and `nack` are done when called, with `await` or without, so they do wait
for that disk: ``await asyncio.to_thread(message.sync.ack)`` doesn't hold up the loop.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from types import TracebackType
from typing import Any, TypeVar

from celeriac import aio_fill, checks
from celeriac import store as sync
from celeriac.aio_limits import AsyncConcurrency, AsyncLimiter
from celeriac.aio_locks import AsyncLeader, AsyncLock, AsyncSemaphore
from celeriac.aio_twins import Handle, done, maker, twin, writing
from celeriac.cache import TTL, USE_DEFAULT, Cache, Key
from celeriac.errors import CeleriacError, QueueFull
from celeriac.message import Message
from celeriac.metrics import Metrics
from celeriac.prefix_stats import PrefixStats
from celeriac.queue import Queue, Waiter
from celeriac.table import Table

_Result = TypeVar("_Result")


class AsyncCache(Handle):
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

    @property
    def name(self) -> str:
        """The name of the namespace."""
        return self.sync.name

    @property
    def ttl_default(self) -> float | None:
        """The ttl of entries that are given none."""
        return self.sync.ttl_default

    @property
    def max_entries(self) -> int | None:
        """The bound by count, if there is one."""
        return self.sync.max_entries

    get = twin(Cache.get)
    set = twin(Cache.set)
    add = twin(Cache.add)
    replace = twin(Cache.replace)
    delete = twin(Cache.delete)
    touch = twin(Cache.touch)
    get_many = twin(Cache.get_many)
    set_many = twin(Cache.set_many)
    delete_many = twin(Cache.delete_many)
    incr = twin(Cache.incr)
    decr = twin(Cache.decr)
    ttl = twin(Cache.ttl)
    expire = twin(Cache.expire)
    expire_at = twin(Cache.expire_at)
    persist = twin(Cache.persist)
    invalidate = twin(Cache.invalidate)
    tags_of = twin(Cache.tags_of)
    cull = twin(Cache.cull)
    clear = twin(Cache.clear)
    stats = twin(Cache.stats)

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


class AsyncTable(AsyncCache):
    """:class:`celeriac.Table` for asyncio; see there for what the calls do."""

    sync: Table

    def __init__(self, table: Table) -> None:
        super().__init__(table)

    get_versioned = twin(Table.get_versioned)
    compare_and_set = twin(Table.compare_and_set)
    compare_and_delete = twin(Table.compare_and_delete)
    items = twin(Table.items)
    change_count = twin(Table.change_count)

    async def wait_for_change(self, key: Key, seen: int, timeout: float | None = None) -> bool:
        """See Table.wait_for_change. Another thread sleeps: the loop doesn't."""
        checks.check_ttl(timeout, "timeout")
        return await aio_fill.sleep_in_thread(
            lambda left: self.sync.wait_for_change(key, seen, left), timeout
        )


class _Done:
    """To be awaited or not: it has happened."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE = _Done()


class AsyncMessage:
    """:class:`celeriac.Message` for asyncio; see there for what the calls do.

    ``message.ack()`` and ``await message.ack()`` are the same.
    """

    __slots__ = ("_queue", "sync")

    def __init__(self, message: Message, queue: AsyncQueue) -> None:
        self.sync = message
        """The message behind it."""
        self._queue = queue

    def __repr__(self) -> str:
        return repr(self.sync)

    @property
    def queue(self) -> AsyncQueue:
        """The queue that it came from."""
        return self._queue

    @property
    def body(self) -> bytes:
        """See Message.body."""
        return self.sync.body

    @property
    def headers(self) -> dict[str, Any]:
        """See Message.headers."""
        return self.sync.headers

    @property
    def id(self) -> str:
        """See Message.id."""
        return self.sync.id

    @property
    def deliveries(self) -> int:
        """See Message.deliveries."""
        return self.sync.deliveries

    @property
    def redelivered(self) -> bool:
        """See Message.redelivered."""
        return self.sync.redelivered

    @property
    def priority(self) -> int:
        """See Message.priority."""
        return self.sync.priority

    @property
    def reason(self) -> str | None:
        """See Message.reason."""
        return self.sync.reason

    def extend(self, seconds: float) -> Awaitable[None]:
        """See Message.extend. Done, or raised, when it returns; awaiting adds nothing."""
        self.sync.extend(seconds)
        return _DONE

    def ack(self) -> Awaitable[None]:
        """See Message.ack. Done, or raised, when it returns; awaiting the result adds nothing."""
        self.sync.ack()
        return _DONE

    def nack(self, delay: float = 0, reason: str | None = None) -> Awaitable[None]:
        """See Message.nack. Done, or raised, when it returns; awaiting the result adds nothing."""
        self.sync.nack(delay, reason)
        return _DONE


async def _with_room(
    queue: AsyncQueue, put: Callable[[], _Result], timeout: float | None
) -> _Result:
    """Puts; while the queue is full, again and again until the deadline, and others run meanwhile.

    Who is cancelled has put nothing: a thread that waits in his place could put afterwards.
    """
    checks.check_ttl(timeout, "timeout")
    ends = None if timeout is None else time.monotonic() + timeout
    pause = 0.001
    while True:
        try:
            return await done(queue, put)
        except QueueFull:
            left = pause if ends is None else ends - time.monotonic()
            if left <= 0:
                raise
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, 0.02)


class AsyncQueue(Handle):
    """:class:`celeriac.Queue` for asyncio; see there for what the calls do."""

    def __init__(self, queue: Queue) -> None:
        self.sync = queue
        """The queue behind it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sync.name!r}>"

    @property
    def name(self) -> str:
        """The name of the queue."""
        return self.sync.name

    @functools.wraps(Queue.put)
    async def put(self, body: bytes | str, *, timeout: float | None = 0, **options: Any) -> str:
        return await _with_room(self, lambda: self.sync.put(body, **options), timeout)

    @functools.wraps(Queue.put_many)
    async def put_many(
        self, bodies: Iterable[bytes | str], *, timeout: float | None = 0, **options: Any
    ) -> list[str]:
        done: list[str] = []
        if isinstance(bodies, Iterable) and not isinstance(bodies, (str, bytes)):
            bodies = list(bodies)  # to be gone through more than once

        def put_rest() -> list[str]:
            rest = itertools.islice(bodies, len(done), None) if done else bodies
            try:
                return [*done, *self.sync.put_many(rest, **options)]
            except CeleriacError as error:
                done.extend(error.ids)
                error.ids = list(done)
                raise

        return await _with_room(self, put_rest, timeout)

    @property
    def paused(self) -> bool:
        """See Queue.paused."""
        return self.sync.paused

    counts = twin(Queue.counts)
    dropped = twin(Queue.dropped)
    ready = twin(Queue.ready)
    delayed = twin(Queue.delayed)
    dead = twin(Queue.dead)
    done = twin(Queue.done)
    retry_dead = writing(Queue.retry_dead)
    purge_dead = writing(Queue.purge_dead)
    cancel = writing(Queue.cancel)
    pause = writing(Queue.pause)
    resume = writing(Queue.resume)
    oldest_age = twin(Queue.oldest_age)
    consumers = twin(Queue.consumers)
    purge = writing(Queue.purge)
    delete = writing(Queue.delete)

    async def get(self, timeout: float | None = None) -> AsyncMessage | None:
        """See Queue.get. Waits on the loop; a task that is cancelled has taken no message."""
        message = await self._get(timeout)
        return None if message is None else AsyncMessage(message, self)

    async def _get(self, timeout: float | None) -> Message | None:
        message = self.sync.get(0)
        if message is not None or (timeout is not None and timeout <= 0):
            return message
        deadline = None if timeout is None else time.monotonic() + timeout
        waiter = self.sync.waiter()
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

    async def get_many(self, n: int, timeout: float | None = 0) -> list[AsyncMessage]:
        """See Queue.get_many."""
        found = self.sync.get_many(n, 0)
        if n > 0 and not found:
            first = await self._get(timeout)
            found = [] if first is None else [first, *self.sync.get_many(n - 1, 0)]
        return [AsyncMessage(message, self) for message in found]


class AsyncStore(Handle):
    """:class:`celeriac.Store` for asyncio; made by :func:`connect`."""

    def __init__(self, store: sync.Store) -> None:
        self.sync = store
        """The store behind it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.url}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return connect, (self.url,)

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
    def path(self) -> str:
        """See Store.path."""
        return self.sync.path

    @property
    def closed(self) -> bool:
        """See Store.closed."""
        return self.sync.closed

    @property
    def metrics(self) -> Metrics:
        """See Store.metrics: none of its calls waits, so they are the same here."""
        return self.sync.metrics

    cache = maker(sync.Store.cache, AsyncCache)
    table = maker(sync.Store.table, AsyncTable)
    queue = maker(sync.Store.queue, AsyncQueue)
    limiter = maker(sync.Store.limiter, AsyncLimiter)
    concurrency = maker(sync.Store.concurrency, AsyncConcurrency)
    lock = maker(sync.Store.lock, AsyncLock)
    semaphore = maker(sync.Store.semaphore, AsyncSemaphore)
    leader = maker(sync.Store.leader, AsyncLeader)

    caches = twin(sync.Store.caches)
    tables = twin(sync.Store.tables)
    has_queue = twin(sync.Store.has_queue)
    queues = twin(sync.Store.queues)
    locks = twin(sync.Store.locks)
    stats = twin(sync.Store.stats)
    owners = twin(sync.Store.owners)
    recover = twin(sync.Store.recover)
    close = twin(sync.Store.close)

    async def resize(self, memory: int | str) -> int:
        """See Store.resize; in a thread, for it may work for long."""
        return await asyncio.to_thread(self.sync.resize, memory)

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """See Store.backup; in a thread, for it writes a file."""
        await asyncio.to_thread(self.sync.backup, path)

    async def destroy(self, force: bool = False) -> None:
        """See Store.destroy; in a thread, for it may wait for others to leave."""
        await asyncio.to_thread(self.sync.destroy, force)


def connect(url: str, **options: Any) -> AsyncStore:
    """Open a store as :func:`celeriac.connect` does; to be awaited, or for ``async with``."""
    return AsyncStore(sync.connect(url, **options))


async def restore(url: str, path: str | os.PathLike[str]) -> None:
    """See :func:`celeriac.restore`; in a thread, for it reads and writes files."""
    await asyncio.to_thread(sync.restore, url, path)
