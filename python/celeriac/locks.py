"""Locks and semaphores of a store; what they have in common is in `lock_base`."""

from __future__ import annotations

import threading
import time
from typing import Any, Final
from weakref import WeakValueDictionary

from celeriac import checks, leases, lock_base
from celeriac.errors import DeadlockError, LockLost, NotOwner
from celeriac.lock_base import NEVER, Held, Holds, Named, this_thread, threads

_reentrant: Final[WeakValueDictionary[tuple[str, str], Holds]] = WeakValueDictionary()


class Lock(Named):
    """A lock by name; made by :meth:`celeriac.Store.lock`.

    Held by one thread of one process, from ``acquire()`` to ``release()``, or to the end of its
    ``ttl``, or to the end of its process. Thread-safe; threads may share it, each is an owner.
    Pickles as its store's URL and its arguments, and holds nothing there.
    """

    __slots__ = ("_alone", "_simple", "reentrant")

    def __init__(self, *arguments: Any, reentrant: bool) -> None:
        super().__init__(*arguments)
        self.reentrant = checks.yes_or_no(reentrant, "reentrant")
        self._alone = not reentrant and not self.renews  # nobody else may end or renew it meanwhile
        self._simple = not reentrant and not self.lease
        if reentrant:
            self._held = _reentrant.setdefault((self._path, self.name), Holds())

    def acquire(self, timeout: float | None = None, blocking: bool = True) -> bool:
        """See Named.acquire."""
        # What most calls do, at the cost of one call.
        if self._simple and timeout is None and (blocking is True or blocking is False):
            try:
                who = threads.me
            except AttributeError:
                who = this_thread()
            if who not in self._held:
                taken = self.core.take()
                if taken is not None:
                    self._held[who] = (*taken, 1, lock_base.forks, NEVER)
                    return True
        return super().acquire(timeout, blocking)

    acquire.__doc__ = Named.acquire.__doc__

    def release(self) -> None:
        """See Named.release."""
        who = getattr(threads, "me", None)
        held = self._held.get(who)
        plain = self._alone and self.on_lost is None
        if held is None or held[2] != 1 or held[3] != lock_base.forks or not plain:
            super().release()
            return
        try:
            self.core.release(held[0])
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
        if self.lease:
            self.prolong(who, None)
        place, token, count, fork, ends = self._held[who]
        self._held[who] = (place, token, count + 1, fork, ends)
        return True

    def give_back(self, who: object) -> None:
        """Release, once for each time that it was acquired. Raises NotOwner, LockLost."""
        held = self.mine(who)
        if held is not None and held.times > 1:
            self._held[who] = held._replace(times=held.times - 1)
            return
        super().give_back(who)

    def keep(self, who: object, place: int, token: int) -> None:
        """Remember an acquisition. What `who` had before was lost, or it would not be here."""
        before = self._held.get(who)
        super().keep(who, place, token)
        if before is not None and self.lease:
            leases.forget(before[1])

    def refuse_to_wait_for(self, who: object) -> None:
        """Raises DeadlockError when `who` would wait for itself."""
        held = self.mine(who)
        if held is not None and held.ends == NEVER:
            raise DeadlockError(
                f"this thread holds the lock {self.name!r} already, and would wait for itself "
                "without end: make it with reentrant=True, or acquire(timeout=...)"
            )


class Semaphore(Named):
    """At most ``permits`` at once, in all processes; made by :meth:`celeriac.Store.semaphore`.

    A permit is held by the process and the handle that acquired it, not by a thread: any thread may
    release it, as with `threading.Semaphore`. Permits of a process that dies are free at once.
    """

    __slots__ = ("_lock", "_permits", "permits")
    kind = "semaphore"

    def __init__(self, *arguments: Any, permits: int) -> None:
        super().__init__(*arguments)
        self.permits = permits
        self._lock = threading.Lock()
        self._permits: list[Held] = []

    def owner_now(self) -> object:
        """The handle: permits are no thread's."""
        return self

    def keep(self, who: object, place: int, token: int) -> None:
        """Remember a permit."""
        now = time.monotonic()
        left = self.left(token)
        held = Held(place, token, 1, lock_base.forks, now + left)
        with self._lock:
            self._permits.append(held)
            self._held[token] = held
        self._watch(place, token, left)

    def mine(self, who: object) -> Held | None:
        """The permit that was acquired last."""
        while self._permits:
            held = self._permits[-1]
            if held.fork == lock_base.forks:
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
        seconds = self.lease if ttl is None else checks.limited(ttl, "ttl", 0, above=True)
        with self._lock:
            if self.mine(who) is None:
                raise self._not_owner()
            for held in list(self._permits):
                try:
                    self.core.renew(held.place, seconds)
                except (LockLost, NotOwner) as error:
                    self._permits.remove(held)
                    self._held.pop(held.token, None)
                    raise self._said(error) from None
                self._watch(held.place, held.token, seconds)

    def locked(self) -> bool:
        """Whether all permits are taken, by those who live."""
        return len(self.core.holders()[0]) >= self.permits

    def _not_owner(self) -> NotOwner:
        return NotOwner(f"no permit of the semaphore {self.name!r} is held by this handle here")
