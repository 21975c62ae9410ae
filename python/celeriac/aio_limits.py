"""Limits for asyncio: the twins of :class:`celeriac.Limiter` and :class:`celeriac.Concurrency`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator
from types import TracebackType

from celeriac import aio_fill, checks
from celeriac.aio_twins import Handle, twin
from celeriac.concurrency import Concurrency, Slot
from celeriac.limits import Decision, Key, Limit, Limiter, wait_async
from celeriac.rates import Rate


class AsyncLimiter(Handle):
    """:class:`celeriac.Limiter` for asyncio; see there for what the calls do."""

    def __init__(self, limiter: Limiter) -> None:
        self.sync = limiter
        """The limiter behind it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sync.name!r}>"

    @property
    def name(self) -> str:
        """See Limiter.name."""
        return self.sync.name

    @property
    def rates(self) -> tuple[Rate, ...]:
        """See Limiter.rates."""
        return self.sync.rates

    hit = twin(Limiter.hit)
    peek = twin(Limiter.peek)
    reset = twin(Limiter.reset)
    refund = twin(Limiter.refund)

    async def wait(self, key: Key, cost: int = 1, timeout: float | None = None) -> Decision:
        """See Limiter.wait. Other tasks run meanwhile; one that is cancelled has taken nothing."""
        return await wait_async(self.sync, key, cost, timeout)

    def limit(
        self,
        key: Key | Callable[..., Key] = "",
        *,
        cost: int = 1,
        timeout: float | None = None,
    ) -> Limit:
        """See Limiter.limit: it takes async functions, and ``async with``."""
        return self.sync.limit(key, cost=cost, timeout=timeout)


class Acquiring:
    """To be awaited, which gives a Slot, or for ``async with``."""

    __slots__ = ("_slot", "_timeout", "_to")

    def __init__(self, to: Concurrency, timeout: float | None) -> None:
        self._to = to
        self._timeout = timeout
        self._slot: Slot | None = None

    def __await__(self) -> Generator[object, None, Slot]:
        return self._acquire().__await__()

    async def _acquire(self) -> Slot:
        core, name, timeout = self._to._core, self._to.name, self._timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while (place := core.enter(0)) is None:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            seen = core.await_room()
            place = core.enter(0)
            if place is not None:
                break
            # A thread sleeps for us, but doesn't enter: who is cancelled meanwhile has no slot.
            await aio_fill.sleep_in_thread(functools.partial(core.wait, seen), left)
        return Slot(core, name, place, timeout)

    async def __aenter__(self) -> Slot:
        self._slot = await self._acquire()
        return self._slot.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._slot is not None:
            self._slot.__exit__(kind, value, traceback)


class AsyncConcurrency(Handle):
    """:class:`celeriac.Concurrency` for asyncio; see there for what the calls do."""

    def __init__(self, concurrency: Concurrency) -> None:
        self.sync = concurrency
        """The limit behind it."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sync.name!r}>"

    @property
    def name(self) -> str:
        """See Concurrency.name."""
        return self.sync.name

    @property
    def limit(self) -> int:
        """See Concurrency.limit."""
        return self.sync.limit

    in_use = twin(Concurrency.in_use)

    def acquire(self, timeout: float | None = None) -> Acquiring:
        """See Concurrency.acquire; to be awaited, or for ``async with``. A task that is cancelled
        while it waits holds no slot."""
        checks.check_ttl(timeout, "timeout")
        return Acquiring(self.sync, timeout)
