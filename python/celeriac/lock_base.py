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
- L5  A lease with ``renew=True`` is renewed when a third of it is over, by a thread that stands
  still when the process does. Who renews and who releases take turns, so that a release is never
  told as a loss.

Killed at any instruction: the kernel tells the others, and who waits first has the lock.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, TypeVar

from celeriac import checks, green, leases
from celeriac.errors import CeleriacError, LockLost, LockTimeout, NotOwner

if TYPE_CHECKING:
    from celeriac._core import Lock as CoreLock

_Self = TypeVar("_Self", bound="Named")
FOR_EVER: Final = -1.0
NEVER: Final = float("inf")


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
    times: int
    fork: int
    ends: float
    """When its lease is over at the earliest, on the monotonic clock."""


# As it is remembered: making a named tuple costs as much as taking a lock.
Raw = tuple[int, int, int, int, float]


class Holds(dict[Any, Raw]):
    __slots__ = ("__weakref__",)


threads = threading.local()
forks = 0


def _forked() -> None:
    global forks
    forks += 1


os.register_at_fork(after_in_child=_forked)


def this_thread() -> object:
    """An object that is this thread's alone, also when its number is used again; under gevent this
    greenlet's."""
    try:
        return threads.me
    except AttributeError:
        threads.me = object()
        return threads.me


class Named:
    """What locks, semaphores and leaders have in common: a name, a line, and who holds."""

    __slots__ = (
        "_again",
        "_held",
        "_path",
        "_renewed",
        "_wait",
        "core",
        "lease",
        "name",
        "on_lost",
        "renews",
        "timeout",
        "ttl",
    )
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
        renew: bool = False,
    ) -> None:
        self.core = core
        self._path = path
        self._again = again
        self._held: dict[Any, Raw] = {}
        self.lease = 0.0 if ttl is None else checks.limited(ttl, "ttl", 0, above=True)
        self._wait = FOR_EVER if timeout is None else checks.limited(timeout, "timeout", 0)
        if on_lost is not None:
            self._check_on_lost(on_lost)
        if checks.yes_or_no(renew, "renew") and not self.lease:
            raise ValueError("renew=True without ttl=: only a lease is renewed")
        self._renewed: dict[int, float] = {}
        self.renews = renew
        self.name = name
        self.ttl = ttl
        self.timeout = timeout
        self.on_lost = on_lost

    def _check_on_lost(self, on_lost: object) -> None:
        if not callable(on_lost):
            raise TypeError(f"on_lost is a function or None, not {type(on_lost).__name__}")
        if not self.lease:
            raise ValueError("on_lost= without ttl=: only a lease can be lost")

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

    def left(self, token: int) -> float:
        """Seconds that are left of the lease of that token, which began as it was granted."""
        if not self.lease:
            return NEVER
        return next((h["ttl"] for h in self.core.holders()[0] if h["token"] == token), 0.0)

    def keep(self, who: object, place: int, token: int) -> None:
        """Remember an acquisition."""
        now = time.monotonic()
        left = self.left(token)
        self._held[who] = (place, token, 1, forks, now + left)
        self._watch(place, token, left)

    def _watch(self, place: int, token: int, left: float) -> None:
        """Have the lease renewed, or told about; `left` seconds of it are left."""
        if self.renews:
            renew = functools.partial(self._renew_for_holder, place)
            leases.renewals.watch(token, left / 3, renew)
        elif self.on_lost is not None:
            leases.losses.watch(token, left, self._lost)

    def _ends(self, held: Held) -> float:
        """When its lease is over at the earliest."""
        return max(held.ends, self._renewed.get(held.token, 0.0))

    def mine(self, who: object) -> Held | None:
        """What `who` holds, as far as is remembered."""
        found = self._held.get(who)
        if found is None:
            return None
        if found[3] != forks:
            del self._held[who]
            return None
        return Held._make(found)

    def give_back(self, who: object) -> None:
        """Release. Raises NotOwner, LockLost."""
        held = self.mine(who)
        if held is None:
            raise self._not_owner()
        self._end(held)

    def prolong(self, who: object, ttl: float | None) -> None:
        """Renew. Raises NotOwner, LockLost."""
        seconds = self.lease if ttl is None else checks.limited(ttl, "ttl", 0, above=True)
        held = self.mine(who)
        if held is None:
            raise self._not_owner()
        ends = time.monotonic() + seconds if seconds else NEVER
        try:
            self.core.renew(held.place, seconds)
        except (LockLost, NotOwner) as error:
            del self._held[who]
            raise self._said(error) from None
        self._renewed.pop(held.token, None)
        self._held[who] = held._replace(ends=ends)
        self._watch(held.place, held.token, seconds)

    # ---- their parts

    def _end(self, held: Held) -> None:
        with leases.turn if self.lease else nullcontext():
            leases.forget(held.token)
            self._renewed.pop(held.token, None)
            try:
                self.core.release(held.place)
            except (LockLost, NotOwner) as error:
                self._drop(held)
                raise self._said(error) from None
            self._drop(held)

    def _drop(self, held: Held) -> None:
        for who, one in list(self._held.items()):
            if one[0] == held.place:
                del self._held[who]

    def _renew_for_holder(self, place: int, token: int) -> None:
        with leases.turn:
            if not self._holds(token):
                return
            ends, again = time.monotonic() + self.lease, self.lease / 3
            try:
                self.core.renew(place, self.lease)
                self._renewed[token] = ends
            except LockTimeout:  # a stopped process is in the way
                again = self.lease / 20
            except CeleriacError as error:
                leases.logger.warning("%s", self._said(error))
                self._renewed.pop(token, None)
                leases.losses.watch(token, 0.0, self._lost)
                return
            leases.renewals.watch(token, again, functools.partial(self._renew_for_holder, place))

    def _holds(self, token: int) -> bool:
        return any(one[1] == token and one[3] == forks for one in list(self._held.values()))

    def _said(self, error: Exception) -> Exception:
        return type(error)(f"{self.kind} {self.name!r}: {error}")

    def _not_owner(self) -> NotOwner:
        return NotOwner(f"the {self.kind} {self.name!r} is not held by this thread of this process")

    def _lost(self, token: int) -> None:
        """The lease of that token has ended: tell who holds it, if he thinks so still."""
        if self.on_lost is not None and self._holds(token):
            self.on_lost(self)

    def take_within(self, seconds: float) -> tuple[int, int]:
        """(place, token) of an acquisition; (0, 0) when it wasn't to be had in time."""
        if not green.patched() or seconds == 0:
            return self.core.acquire(self.lease, seconds)
        place, token = self.core.enter(self.lease)
        try:
            if not token:
                left = None if seconds < 0 else seconds
                token = green.wait(lambda: self.core.wait(place, 0), left)
            return (place, token) if token else (0, 0)
        finally:
            if not token:  # in time, or a greenlet that was killed
                self.core.leave(place)

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
        if seconds < 0 and not self.lease and self._held:
            self.refuse_to_wait_for(who)
        place, token = self.take_within(seconds)
        if not place:
            return False
        self.keep(who, place, token)
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
        return [Holder(h["pid"], h["command"], h["token"]) for h in self.core.holders()[0]]

    def waiting(self) -> int:
        """How many wait for it."""
        return self.core.holders()[1]

    def locked(self) -> bool:
        """Whether somebody who lives holds it, and its lease isn't over."""
        return bool(self.core.holders()[0])

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
