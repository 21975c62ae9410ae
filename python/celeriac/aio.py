"""celeriac for asyncio: the same names, with ``await`` where a call can block.

    store = await celeriac.aio.connect("shm://app")
    cache = store.cache("prices")
    await cache.set("product:7", {"price": 12})
    await cache.get_or_set("product:8", fetch_product, 60, stale=30)

On a store of this host a call takes about a microsecond and waits for nothing: it is a plain call
behind ``await``, on the loop's thread. What waits (`get_or_set` for another's computation, a queue
for a message, a table for a change) never blocks the loop, and walks over many keys let others run
between their steps. A message's `ack` and `nack` are done when called, with `await` or without.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from celeriac import aio_fill, checks
from celeriac import store as sync
from celeriac.cache import TTL, USE_DEFAULT, Cache, Key
from celeriac.errors import CeleriacError, QueueFull
from celeriac.message import Message
from celeriac.prefix_stats import PrefixStats
from celeriac.queue import Queue, Waiter
from celeriac.table import Table

_Self = TypeVar("_Self", bound="_Handle")
_Twin = TypeVar("_Twin")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def _twin(
    call: Callable[Concatenate[Any, _Arguments], _Result],
) -> Callable[Concatenate[Any, _Arguments], Coroutine[Any, Any, _Result]]:
    """The same call of the object behind, which waits for nothing, to be awaited."""
    name = call.__name__

    async def twin(self: Any, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        result: _Result = getattr(self.sync, name)(*args, **kwargs)
        return result

    functools.update_wrapper(twin, call)
    return twin


def _maker(
    call: Callable[Concatenate[sync.Store, _Arguments], Any], kind: Callable[[Any], _Twin]
) -> Callable[Concatenate[Any, _Arguments], _Twin]:
    """The same call of the store behind, whose result becomes a handle for asyncio."""

    def make(self: Any, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Twin:
        return kind(call(self.sync, *args, **kwargs))

    functools.update_wrapper(make, call)
    return make


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

    get = _twin(Cache.get)
    set = _twin(Cache.set)
    add = _twin(Cache.add)
    replace = _twin(Cache.replace)
    delete = _twin(Cache.delete)
    touch = _twin(Cache.touch)
    get_many = _twin(Cache.get_many)
    set_many = _twin(Cache.set_many)
    delete_many = _twin(Cache.delete_many)
    incr = _twin(Cache.incr)
    decr = _twin(Cache.decr)
    ttl = _twin(Cache.ttl)
    expire = _twin(Cache.expire)
    expire_at = _twin(Cache.expire_at)
    persist = _twin(Cache.persist)
    invalidate = _twin(Cache.invalidate)
    tags_of = _twin(Cache.tags_of)
    cull = _twin(Cache.cull)
    clear = _twin(Cache.clear)
    stats = _twin(Cache.stats)

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

    get_versioned = _twin(Table.get_versioned)
    compare_and_set = _twin(Table.compare_and_set)
    compare_and_delete = _twin(Table.compare_and_delete)
    items = _twin(Table.items)
    change_count = _twin(Table.change_count)

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


async def _with_room(put: Callable[[], _Result], timeout: float | None) -> _Result:
    """Puts; while the queue is full, again and again until the deadline, and others run meanwhile.

    Who is cancelled has put nothing: a thread that waits in his place could put afterwards.
    """
    checks.check_ttl(timeout, "timeout")
    ends = None if timeout is None else time.monotonic() + timeout
    pause = 0.001
    while True:
        try:
            return put()
        except QueueFull:
            left = pause if ends is None else ends - time.monotonic()
            if left <= 0:
                raise
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, 0.02)


class AsyncQueue(_Handle):
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
        return await _with_room(lambda: self.sync.put(body, **options), timeout)

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

        return await _with_room(put_rest, timeout)

    @property
    def paused(self) -> bool:
        """See Queue.paused."""
        return self.sync.paused

    counts = _twin(Queue.counts)
    dropped = _twin(Queue.dropped)
    ready = _twin(Queue.ready)
    delayed = _twin(Queue.delayed)
    dead = _twin(Queue.dead)
    done = _twin(Queue.done)
    retry_dead = _twin(Queue.retry_dead)
    purge_dead = _twin(Queue.purge_dead)
    cancel = _twin(Queue.cancel)
    pause = _twin(Queue.pause)
    resume = _twin(Queue.resume)
    oldest_age = _twin(Queue.oldest_age)
    consumers = _twin(Queue.consumers)
    purge = _twin(Queue.purge)
    delete = _twin(Queue.delete)

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


class AsyncStore(_Handle):
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

    cache = _maker(sync.Store.cache, AsyncCache)
    table = _maker(sync.Store.table, AsyncTable)
    queue = _maker(sync.Store.queue, AsyncQueue)

    caches = _twin(sync.Store.caches)
    tables = _twin(sync.Store.tables)
    has_queue = _twin(sync.Store.has_queue)
    queues = _twin(sync.Store.queues)
    stats = _twin(sync.Store.stats)
    owners = _twin(sync.Store.owners)
    recover = _twin(sync.Store.recover)
    close = _twin(sync.Store.close)

    async def resize(self, memory: int | str) -> int:
        """See Store.resize; in a thread, for it may work for long."""
        return await asyncio.to_thread(self.sync.resize, memory)

    async def destroy(self, force: bool = False) -> None:
        """See Store.destroy; in a thread, for it may wait for others to leave."""
        await asyncio.to_thread(self.sync.destroy, force)


def connect(url: str, **options: Any) -> AsyncStore:
    """Open a store as :func:`celeriac.connect` does; to be awaited, or for ``async with``."""
    return AsyncStore(sync.connect(url, **options))
