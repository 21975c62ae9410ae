"""Locks of a store: for all threads and processes of the host, first come first served.

What is held is the store's; what a handle knows is which acquisitions are its own:

- L1  An acquisition has a place in the store, and a token that is higher than that of any before.
  The place is given back by whom it was given to, or ends with the process, or with its lease.
- L2  Each thread is an owner (each task under asyncio). A `Lock` remembers what a thread holds by
  an object that is that thread's alone, so that one that ended is never taken for another. The
  handles of a reentrant lock share what they remember, so that any of them enters again.
- L3  A forked child has its parent's memory and none of its locks: what was remembered before the
  fork counts as nothing, and the store refuses it as well.
- L4  What may have been lost is never said to be held: of a lease the handle remembers an end that
  is no later than the store's.

Killed at any instruction: the kernel tells the others, and who waits first has the lock.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from celeriac import checks, green, leases
from celeriac.errors import DeadlockError, LockLost, LockTimeout, NotOwner

if TYPE_CHECKING:
    from celeriac._core import Lock as CoreLock

_Self = TypeVar("_Self", bound="Named")
_FOR_EVER: Final = -1.0
_NEVER: Final = float("inf")


class Holder(NamedTuple):
    """Who holds a lock."""

    pid: int
    command: str
    token: int


class LockInfo(NamedTuple):
    """Somebody who holds a lock, or waits for it; see `Store.locks`."""

    kind: str
    """``lock``, ``semaphore``, ``leader``, or another part's own."""
    name: str
    """As much of it as fits into 168 bytes."""
    holds: bool
    pid: int
    command: str
    token: int
    """0 while it waits."""
    age: float
    """Seconds that it has held, or waited."""
    ttl: float | None
    """Seconds until its lease ends; None: it has none."""
    permits: int


class Held(NamedTuple):
    """An acquisition, as its handle remembers it."""

    place: int
    token: int
    count: int
    fork: int
    ends: float
    """When its lease is over at the earliest, on the monotonic clock."""


# As it is remembered: making a named tuple costs as much as taking a lock.
_Raw = tuple[int, int, int, int, float]


class _Holds(dict[Any, _Raw]):
    __slots__ = ("__weakref__",)


_reentrant: WeakValueDictionary[tuple[str, str], _Holds] = WeakValueDictionary()
_thread = threading.local()
_fork = 0


def _forked() -> None:
    global _fork
    _fork += 1


os.register_at_fork(after_in_child=_forked)


def this_thread() -> object:
    """An object that is this thread's alone, also when its number is used again; under gevent this
    greenlet's."""
    try:
        return _thread.me
    except AttributeError:
        _thread.me = object()
        return _thread.me


class Named:
    """What locks, semaphores and leaders have in common: a name, a line, and who holds."""

    kind: ClassVar[str] = "lock"

    def __init__(
        self,
        core: CoreLock,
        path: str,
        name: str,
        again: Callable[[], Any],
        ttl: float | None,
        timeout: float | None,
        on_lost: Callable[[Any], object] | None,
    ) -> None:
        self._core = core
        self._path = path
        self._again = again
        self._held: dict[Any, _Raw] = {}
        self._lease = 0.0 if ttl is None else checks.limited(ttl, "ttl", 0, above=True)
        self._wait = _FOR_EVER if timeout is None else checks.limited(timeout, "timeout", 0)
        if on_lost is not None and not callable(on_lost):
            raise TypeError(f"on_lost is a function or None, not {type(on_lost).__name__}")
        if on_lost is not None and ttl is None:
            raise ValueError("on_lost= without ttl=: only a lease can be lost")
        self.name = name
        self.ttl = ttl
        self.timeout = timeout
        self.on_lost = on_lost

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()

    # ---- what the twins for asyncio use as well

    def owner_now(self) -> object:
        """Whose acquisitions are the caller's: those of this key."""
        return this_thread()

    def again(self, who: object) -> bool:
        """Whether `who` needs no other acquisition. Raises LockLost."""
        return False

    def seconds(self, timeout: object, blocking: object) -> float:
        """How long to wait, below zero for ever. Raises TypeError, ValueError."""
        if timeout is None:
            return self._wait if checks.yes_or_no(blocking, "blocking") else 0.0
        if not checks.yes_or_no(blocking, "blocking"):
            raise ValueError(f"timeout={timeout!r} with blocking=False, which doesn't wait")
        return checks.limited(timeout, "timeout", 0)

    def begun(self) -> float:
        """When a lease that is asked for now ends at the earliest."""
        return time.monotonic() + self._lease if self._lease else _NEVER

    def keep(self, who: object, place: int, token: int, ends: float) -> None:
        """Remember an acquisition."""
        self._held[who] = (place, token, 1, _fork, ends)
        if self.on_lost is not None:
            leases.watch(token, self._lease, self._lost)

    def mine(self, who: object) -> Held | None:
        """What `who` holds, as far as is remembered."""
        found = self._held.get(who)
        if found is None:
            return None
        if found[3] != _fork:
            del self._held[who]
            return None
        return Held._make(found)

    def give_back(self, who: object) -> None:
        """Release. Raises NotOwner, LockLost."""
        held = self.mine(who)
        if held is None:
            raise self._not_owner()
        self._end(held)
        del self._held[who]

    def prolong(self, who: object, ttl: float | None) -> None:
        """Renew. Raises NotOwner, LockLost."""
        seconds = self._lease if ttl is None else checks.limited(ttl, "ttl", 0, above=True)
        held = self.mine(who)
        if held is None:
            raise self._not_owner()
        ends = time.monotonic() + seconds if seconds else _NEVER
        try:
            self._core.renew(held.place, seconds)
        except (LockLost, NotOwner) as error:
            del self._held[who]
            raise self._said(error) from None
        self._held[who] = held._replace(ends=ends)
        if self.on_lost is not None:
            leases.watch(held.token, seconds, self._lost)

    # ---- their parts

    def _end(self, held: Held) -> None:
        if self.on_lost is not None:
            leases.forget(held.token)
        try:
            self._core.release(held.place)
        except (LockLost, NotOwner) as error:
            for who, one in list(self._held.items()):
                if one[0] == held.place:
                    del self._held[who]
            raise self._said(error) from None

    def _said(self, error: Exception) -> Exception:
        return type(error)(f"{self.kind} {self.name!r}: {error}")

    def _not_owner(self) -> NotOwner:
        return NotOwner(f"the {self.kind} {self.name!r} is not held by this thread of this process")

    def _lost(self, token: int) -> None:
        """The lease of that token has ended: tell who holds it, if he thinks so still."""
        held = [one for one in list(self._held.values()) if one[1] == token]
        if held and self.on_lost is not None:
            self.on_lost(self)

    def _take(self, seconds: float) -> tuple[int, int]:
        """(place, token) of an acquisition; (0, 0) when it wasn't to be had in time."""
        if not green.patched() or seconds == 0:
            return self._core.acquire(self._lease, seconds)
        place, token = self._core.enter(self._lease)
        try:
            if not token:
                left = None if seconds < 0 else seconds
                token = green.wait(lambda: self._core.wait(place, 0), left)
            return (place, token) if token else (0, 0)
        finally:
            if not token:  # in time, or a greenlet that was killed
                self._core.leave(place)

    # ---- what users call

    def acquire(self, timeout: float | None = None, blocking: bool = True) -> bool:
        """Take it; False when it wasn't to be had in time.

        :param timeout: most seconds to wait; None: what the handle was made with, else no limit.
            Waiting costs no CPU and releases the interpreter lock; under gevent others run.
        :param blocking: False doesn't wait at all.

        Who waits is served in the order of coming, and at once when the holder's process dies.
        Raises TypeError, ValueError, NotEnoughMemory; and DeadlockError where a lock that isn't
        reentrant would wait, without end, for the very thread that asks. Thread-safe, fork-safe.
        Crash-safe: a process that is killed meanwhile has its place in the line or not, and holds
        nothing once it is dead.
        """
        who = self.owner_now()
        if self._held and self.again(who):
            return True
        seconds = self._wait if timeout is None and blocking is True else None
        if seconds is None:
            seconds = self.seconds(timeout, blocking)
        if seconds < 0 and not self._lease and self._held:
            self.refuse_to_wait_for(who)
        ends = self.begun()
        place, token = self._take(seconds)
        if not place:
            return False
        self.keep(who, place, token, ends)
        return True

    def refuse_to_wait_for(self, who: object) -> None:
        """Raises DeadlockError when `who` would wait for what it holds itself."""

    def release(self) -> None:
        """Give it up: who waits first has it.

        Raises NotOwner when this thread of this process doesn't hold it; LockLost when its lease
        is over, whether another has it by now or not. Thread-safe, fork-safe. Crash-safe: a process
        that is killed meanwhile has released it or is dead, which comes to the same.
        """
        self.give_back(self.owner_now())

    def renew(self, ttl: float | None = None) -> None:
        """Let the lease last so many seconds from now; by default as many as the handle's ``ttl``.

        Raises NotOwner when this thread doesn't hold it, LockLost when the lease is over: then it
        is held no more, whether another has it or not. Without a ttl it checks just that.
        Crash-safe: the lease ends as before, or as asked for.
        """
        self.prolong(self.owner_now(), ttl)

    @property
    def token(self) -> int | None:
        """The fencing token of what this thread holds, or None.

        It is higher than that of any acquisition before it, of any name, also across releases and
        when nobody has used the name for long. Send it along with what you write, and let who
        stores it refuse a lower one: then a holder that is late, or was stopped, does no harm.
        """
        held = self.mine(self.owner_now())
        return None if held is None else held.token

    @property
    def owner(self) -> Holder | None:
        """Who holds it (of several who came first), or None."""
        return next(iter(self.holders()), None)

    def holders(self) -> list[Holder]:
        """All who hold it, in the order in which they came."""
        return [Holder(h["pid"], h["command"], h["token"]) for h in self._core.holders()[0]]

    def waiting(self) -> int:
        """How many wait for it."""
        return self._core.holders()[1]

    def locked(self) -> bool:
        """Whether somebody who lives holds it, and its lease isn't over."""
        return bool(self._core.holders()[0])

    def __enter__(self: _Self) -> _Self:
        """Waits as `acquire()`; raises LockTimeout."""
        if not self.acquire():
            raise self.too_late()
        return self

    def too_late(self) -> LockTimeout:
        """What ``with`` raises."""
        return LockTimeout(
            f"the {self.kind} {self.name!r} could not be had within {self.timeout} s"
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if value is None:
            self.release()
            return
        with suppress(LockLost, NotOwner):  # what was raised inside says more
            self.release()


class Lock(Named):
    """A lock by name; made by :meth:`celeriac.Store.lock`.

    Held by one thread of one process, from ``acquire()`` to ``release()``, or to the end of its
    ``ttl``, or to the end of its process. Thread-safe; threads may share it, each is an owner.
    Pickles as its store's URL and its arguments, and holds nothing there.
    """

    def __init__(self, *arguments: Any, reentrant: bool) -> None:
        super().__init__(*arguments)
        self.reentrant = checks.yes_or_no(reentrant, "reentrant")
        self._simple = not reentrant and not self._lease
        if reentrant:
            self._held = _reentrant.setdefault((self._path, self.name), _Holds())

    def acquire(self, timeout: float | None = None, blocking: bool = True) -> bool:
        """See Named.acquire."""
        if self._simple and timeout is None:  # what most calls do, at the cost of one call
            try:
                who = _thread.me
            except AttributeError:
                who = this_thread()
            if who not in self._held:
                taken = self._core.take()
                if taken is not None:
                    self._held[who] = (*taken, 1, _fork, _NEVER)
                    return True
        return super().acquire(timeout, blocking)

    acquire.__doc__ = Named.acquire.__doc__

    def release(self) -> None:
        """See Named.release."""
        who = getattr(_thread, "me", None)
        held = self._held.get(who)
        if held is None or held[2] != 1 or held[3] != _fork or self.on_lost is not None:
            super().release()
            return
        try:
            self._core.release(held[0])
        except (LockLost, NotOwner) as error:
            del self._held[who]
            raise self._said(error) from None
        del self._held[who]

    release.__doc__ = Named.release.__doc__

    def again(self, who: object) -> bool:
        """Enters once more, where the lock is reentrant and `who` holds it; renews its lease."""
        held = self.mine(who) if self.reentrant else None
        if held is None:
            return False
        if self._lease:
            self.prolong(who, None)
        place, token, count, fork, ends = self._held[who]
        self._held[who] = (place, token, count + 1, fork, ends)
        return True

    def give_back(self, who: object) -> None:
        """Release, once for each time that it was acquired. Raises NotOwner, LockLost."""
        held = self.mine(who)
        if held is not None and held.count > 1:
            self._held[who] = held._replace(count=held.count - 1)
            return
        super().give_back(who)

    def keep(self, who: object, place: int, token: int, ends: float) -> None:
        """Remember an acquisition. What `who` had before was lost, or it would not be here."""
        before = self._held.get(who)
        super().keep(who, place, token, ends)
        if before is not None and self.on_lost is not None:
            leases.forget(before[1])

    def refuse_to_wait_for(self, who: object) -> None:
        """Raises DeadlockError when `who` would wait for itself."""
        held = self.mine(who)
        if held is not None and held.ends == _NEVER:
            raise DeadlockError(
                f"this thread holds the lock {self.name!r} already, and would wait for itself "
                "without end: make it with reentrant=True, or acquire(timeout=...)"
            )


class Semaphore(Named):
    """At most ``permits`` at once, in all processes; made by :meth:`celeriac.Store.semaphore`.

    A permit is held by the process and the handle that acquired it, not by a thread: any thread may
    release it, as with `threading.Semaphore`. Permits of a process that dies are free at once.
    """

    kind = "semaphore"

    def __init__(self, *arguments: Any, permits: int) -> None:
        super().__init__(*arguments)
        self.permits = permits
        self._lock = threading.Lock()
        self._permits: list[Held] = []

    def owner_now(self) -> object:
        """The handle: permits are no thread's."""
        return self

    def keep(self, who: object, place: int, token: int, ends: float) -> None:
        """Remember a permit."""
        held = Held(place, token, 1, _fork, ends)
        with self._lock:
            self._permits.append(held)
            self._held[token] = held
        if self.on_lost is not None:
            leases.watch(token, self._lease, self._lost)

    def mine(self, who: object) -> Held | None:
        """The permit that was acquired last."""
        while self._permits:
            held = self._permits[-1]
            if held.fork == _fork:
                return held
            self._permits.clear()
            self._held.clear()
        return None

    def give_back(self, who: object) -> None:
        """Release the permit that was acquired last. Raises NotOwner, LockLost."""
        with self._lock:
            held = self.mine(who)
            if held is None:
                raise self._not_owner()
            self._permits.remove(held)
            self._held.pop(held.token, None)
        self._end(held)

    def prolong(self, who: object, ttl: float | None) -> None:
        """Renew all permits of this handle. Raises NotOwner, LockLost."""
        seconds = self._lease if ttl is None else checks.limited(ttl, "ttl", 0, above=True)
        with self._lock:
            if self.mine(who) is None:
                raise self._not_owner()
            for held in list(self._permits):
                try:
                    self._core.renew(held.place, seconds)
                except (LockLost, NotOwner) as error:
                    self._permits.remove(held)
                    self._held.pop(held.token, None)
                    raise self._said(error) from None
                if self.on_lost is not None:
                    leases.watch(held.token, seconds, self._lost)

    def locked(self) -> bool:
        """Whether all permits are taken, by those who live."""
        return len(self._core.holders()[0]) >= self.permits

    def _not_owner(self) -> NotOwner:
        return NotOwner(f"no permit of the semaphore {self.name!r} is held by this handle here")


class Leader(Named):
    """One of many leads; made by :meth:`celeriac.Store.leader`.

    The process leads, by this handle: any of its threads may ask and resign. Acquiring what one
    leads already is True at once. The others wait, and the first of them leads as soon as the
    leader resigns, its ``ttl`` is over, or its process is dead.

    ::

        leader = store.leader("cleanup")
        for token in leader:           # waits to lead; then once for each round, while it leads
            clean(); time.sleep(60)

        with leader: ...               # or as a lock
        leader.campaign(start, stop)   # or in a thread of its own
    """

    kind = "leader"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._waits = 0  # the place of a campaign
        self._campaign: threading.Thread | None = None

    def owner_now(self) -> object:
        """The handle: leadership is no thread's."""
        return self

    def again(self, who: object) -> bool:
        """Whether it leads."""
        return self.is_leader

    @property
    def is_leader(self) -> bool:
        """Whether this handle leads now; costs next to nothing. Of a lease that may be over: no."""
        held = self.mine(self)
        return held is not None and time.monotonic() < held.ends

    def __iter__(self) -> Iterator[int]:
        """The fencing token, again and again while this leads; waits while another does.

        When the loop is left, by ``break`` or an exception, it resigns.
        """
        try:
            while True:
                self.acquire(blocking=True)
                token = self.token
                if token is not None:
                    yield token
        finally:
            with suppress(LockLost, NotOwner):
                self.release()

    def campaign(
        self, on_elected: Callable[[int], object], on_lost: Callable[[Leader], object] | None = None
    ) -> None:
        """Wait to lead in a daemon thread, which then calls ``on_elected(token)`` and ends.

        It leads, whatever becomes of that call, until ``release()``, which also ends a campaign
        that waits. An exception of the call is logged, and it resigns.

        :param on_lost: called with this handle when its lease ends without being renewed.

        Raises RuntimeError while a campaign of this handle is under way.
        """
        if not callable(on_elected):
            raise TypeError(f"on_elected is a function, not {type(on_elected).__name__}")
        if on_lost is not None:
            if not callable(on_lost):
                raise TypeError(f"on_lost is a function or None, not {type(on_lost).__name__}")
            if not self._lease:
                raise ValueError("on_lost= without ttl=: only a lease can be lost")
            self.on_lost = on_lost
        if self._campaign is not None and self._campaign.is_alive():
            raise RuntimeError(f"a campaign for the leader {self.name!r} is under way already")
        place, token = self._core.enter(self._lease)
        self._waits = place
        self._campaign = threading.Thread(
            target=self._run,
            args=(on_elected, place, token),
            name=f"celeriac-leader-{self.name}",
            daemon=True,
        )
        self._campaign.start()

    def _run(self, on_elected: Callable[[int], object], place: int, token: int) -> None:
        try:
            ends = self.begun()
            if not token and green.patched():
                token = green.wait(lambda: self._core.wait(place, 0), None)
            elif not token:
                token = self._core.wait(place, _FOR_EVER)
        except LockLost:
            return  # resigned
        finally:
            self._waits = 0
        self.keep(self, place, token, ends)
        try:
            on_elected(token)
        except Exception:
            leases.logger.exception("on_elected of the leader %r failed", self.name)
            with suppress(LockLost, NotOwner):
                self.release()

    def give_back(self, who: object) -> None:
        """Resign, or end a campaign. Raises NotOwner, LockLost."""
        place = self._waits
        if place and self.mine(who) is None:
            self._core.leave(place)
            return
        super().give_back(who)

    def _not_owner(self) -> NotOwner:
        return NotOwner(f"the leader {self.name!r} is not this handle of this process")
