"""Locks for asyncio: the same names, with ``await``. Each task is an owner.

Taking what is free is a plain call on the loop's thread. Who has to wait has a place in the line at
once; a thread sleeps until that place holds, and the loop goes on. A task that is cancelled gives
its place up, and what it was granted in that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from celeriac import aio_fill, leases
from celeriac.aio_twins import Handle
from celeriac.errors import LockLost, NotOwner
from celeriac.leaders import Leader
from celeriac.lock_base import Holder, Named
from celeriac.locks import Lock, Semaphore

if TYPE_CHECKING:
    from celeriac._core import Lock as CoreLock

_Kind = TypeVar("_Kind", bound=Named)
_Self = TypeVar("_Self", bound="AsyncNamed[Any]")


async def _granted(core: CoreLock, place: int, seconds: float) -> int:
    """The token of a place that waits, once it holds; 0 when it didn't in time, and is given up."""
    token = 0

    def wait(left: float | None) -> bool:
        nonlocal token
        token = core.wait(place, -1.0 if left is None else left)
        return token != 0

    holds = False
    try:
        holds = await aio_fill.sleep_in_thread(wait, None if seconds < 0 else seconds)
        return token if holds else 0
    finally:
        if not holds:
            core.leave(place)


class AsyncNamed(Handle, Generic[_Kind]):
    """What the locks of asyncio have in common. See the plain ones for what the calls do."""

    def __init__(self, lock: _Kind) -> None:
        self.sync = lock
        """The one behind it, whose owners are threads."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _owner(self) -> object:
        """Whose acquisitions are the caller's: those of its task."""
        return asyncio.current_task() or self.sync.owner_now()

    @property
    def name(self) -> str:
        """The name of the lock."""
        return self.sync.name

    @property
    def ttl(self) -> float | None:
        """Seconds that a lease lasts; None: it has none."""
        return self.sync.ttl

    @property
    def timeout(self) -> float | None:
        """Seconds that ``async with`` waits; None: for ever."""
        return self.sync.timeout

    @property
    def renews(self) -> bool:
        """Whether a lease is renewed while it is held."""
        return self.sync.renews

    @property
    def on_lost(self) -> Callable[[Any], object] | None:
        """What is called, in a thread, when a lease is lost."""
        return self.sync.on_lost

    @property
    def token(self) -> int | None:
        """The fencing token of what this task holds, or None. See Lock.token."""
        held = self.sync.mine(self._owner())
        return None if held is None else held.token

    @property
    def owner(self) -> Holder | None:
        """See Lock.owner."""
        return self.sync.owner

    async def holders(self) -> list[Holder]:
        """See Lock.holders."""
        return self.sync.holders()

    async def waiting(self) -> int:
        """See Lock.waiting."""
        return self.sync.waiting()

    async def locked(self) -> bool:
        """See Lock.locked."""
        return self.sync.locked()

    async def acquire(self, timeout: float | None = None, blocking: bool = True) -> bool:
        """See Lock.acquire. Other tasks run meanwhile; one that is cancelled holds nothing."""
        lock, who = self.sync, self._owner()
        if lock.again(who):
            return True
        seconds = lock.seconds(timeout, blocking)
        if seconds < 0:
            lock.refuse_to_wait_for(who)
        core, lease = lock.core, lock.lease
        if seconds == 0:
            place, token = core.acquire(lease, 0.0)
        else:
            place, token = core.enter(lease)
            if not token:
                token = await _granted(core, place, seconds)
        if not token:
            return False
        lock.keep(who, place, token)
        return True

    async def release(self) -> None:
        """See Lock.release; of what this task holds."""
        self.sync.give_back(self._owner())

    async def renew(self, ttl: float | None = None) -> None:
        """See Lock.renew; of what this task holds."""
        self.sync.prolong(self._owner(), ttl)

    async def __aenter__(self: _Self) -> _Self:
        if not await self.acquire():
            raise self.sync.too_late()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if value is None:
            await self.release()
            return
        with suppress(LockLost, NotOwner):  # what was raised inside says more
            await self.release()


class AsyncLock(AsyncNamed[Lock]):
    """:class:`celeriac.Lock` for asyncio: held by a task; reentrant by task."""

    @property
    def reentrant(self) -> bool:
        """Whether a task that holds it may acquire it again."""
        return self.sync.reentrant


class AsyncSemaphore(AsyncNamed[Semaphore]):
    """:class:`celeriac.Semaphore` for asyncio; any task may release."""

    def _owner(self) -> object:
        return self.sync.owner_now()

    @property
    def permits(self) -> int:
        """How many may hold at once."""
        return self.sync.permits


class AsyncLeader(AsyncNamed[Leader]):
    """:class:`celeriac.Leader` for asyncio::

    async for token in leader:     # waits to lead; then once for each round, while it leads
        await clean(); await asyncio.sleep(60)
    """

    def __init__(self, leader: Leader) -> None:
        super().__init__(leader)
        self._campaign: asyncio.Task[None] | None = None

    def _owner(self) -> object:
        return self.sync.owner_now()

    @property
    def is_leader(self) -> bool:
        """See Leader.is_leader."""
        return self.sync.is_leader

    async def __aiter__(self) -> AsyncIterator[int]:
        """See Leader.__iter__. Leave it with ``contextlib.aclosing`` to resign at once."""
        try:
            while True:
                await self.acquire(blocking=True)
                token = self.token
                if token is not None:
                    yield token
        finally:
            with suppress(LockLost, NotOwner):
                await self.release()

    async def campaign(
        self, on_elected: Callable[[int], object], on_lost: Callable[[Any], object] | None = None
    ) -> None:
        """See Leader.campaign; in a task of this loop. ``on_elected`` may be an async function."""
        self.sync.check_campaign(on_elected, on_lost)
        if self._campaign is not None and not self._campaign.done():
            raise RuntimeError(f"a campaign for the leader {self.name!r} is under way already")
        self._campaign = asyncio.ensure_future(self._run(on_elected))

    async def _run(self, on_elected: Callable[[int], object]) -> None:
        await self.acquire()
        try:
            result = on_elected(self.token or 0)
            if asyncio.iscoroutine(result):
                await result
        except Exception:
            leases.logger.exception("on_elected of the leader %r failed", self.name)
            with suppress(LockLost, NotOwner):
                await AsyncNamed.release(self)

    async def release(self) -> None:
        """See Leader.release."""
        campaign = self._campaign
        if campaign is not None and not campaign.done() and self.sync.mine(self.sync) is None:
            campaign.cancel()
            with suppress(asyncio.CancelledError):
                await campaign
            return
        await super().release()
