"""`cache.lock()`: a lock of the whole host, with the calls of the one that django-redis gives.

It is a lock of the store (`celeriac.Store.lock`) whose names are the cache's full keys, and no
value: a lock and a cached value may have the same key, and neither changes the other
(`cache.has_key()` alone looks at both, as code that comes from django-redis expects). Who waits is
served in the order of coming, sleeps until then, and is woken when the holder's process dies.

- A lock that is late, by any time, never touches that of another: all that its holder does is
  refused then (NotOwner, as everywhere in django-redis's lock).
- The holder is a process, and in it a thread or an object (`thread_local`). A forked child inherits
  the object, not the lock: it holds nothing until it acquires.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final

import celeriac
from celeriac import checks
from celeriac.errors import LockLost, LockTimeout, NotOwner
from celeriac.lock_base import FOR_EVER, Held, Named, this_thread

_KIND: Final = "cache"
_AT_ONCE: Final = 1e-9


def is_locked(store: celeriac.Store, key: str) -> bool:
    """Whether a living process holds the lock of that (full) key."""
    return store._core.is_locked(f"{_KIND}:{key}")


def _unpicklable() -> None:
    raise TypeError("a lock of the cache isn't pickled: make it anew, cache.lock(key)")


class Lock:
    """A lock by key. Made by `cache.lock()`.

    :param timeout: seconds, above zero, after which the lock is free again, held or not; None = it
        is held until released, or until the process ends.
    :param blocking_timeout: most seconds that `acquire` waits; None = no limit.
    :param thread_local: only the thread that acquired may release; else any that has the object.

    It belongs to the process that acquired it: in a forked child `owned()` is False, and
    `release()` raises NotOwner. Thread-safe. The lock of a process that dies is free at once.
    """

    def __init__(
        self,
        store: celeriac.Store,
        key: str,
        *,
        timeout: float | None,
        blocking: bool,
        blocking_timeout: float | None,
        thread_local: bool,
    ) -> None:
        if timeout is not None:
            checks.limited(timeout, "timeout", 0, above=True)
        self._check_wait(blocking_timeout)
        core = store._core.lock(f"{_KIND}:{key}", 1)
        self._lock = Named(core, store.path, key, _unpicklable, None, None, None)
        self._store = store
        self.name = key
        self.timeout = timeout
        self.blocking = blocking
        self.blocking_timeout = blocking_timeout
        self._thread_local = thread_local

    @staticmethod
    def _check_wait(blocking_timeout: float | None) -> None:
        if blocking_timeout is not None:
            checks.limited(blocking_timeout, "blocking_timeout", 0)

    def acquire(
        self,
        blocking: bool | None = None,
        blocking_timeout: float | None = None,
        *,
        sleep: float | None = None,
    ) -> bool:
        """Take the lock; False when it isn't to be had (in time). `sleep` isn't needed."""
        if blocking is None:
            blocking = self.blocking
        if blocking_timeout is None:
            blocking_timeout = self.blocking_timeout
        self._check_wait(blocking_timeout)
        seconds = FOR_EVER if blocking_timeout is None else float(blocking_timeout)
        self._lock.lease = float(self.timeout or 0)
        place, token = self._lock.take_within(seconds if blocking else 0.0)
        if place:
            self._lock.keep(self._owner(), place, token)
        return place != 0

    def _owner(self) -> object:
        return this_thread() if self._thread_local else self

    def release(self) -> None:
        """Give the lock back. Raises NotOwner when it isn't held by this one (any more)."""
        try:
            self._lock.give_back(self._owner())
        except (LockLost, NotOwner):
            raise self._late() from None

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return is_locked(self._store, self.name)

    def owned(self) -> bool:
        """Whether this one holds it."""
        return self._holds() is not None

    def _holds(self) -> tuple[Held, float | None] | None:
        """What it holds still, and for how many seconds."""
        held = self._lock.mine(self._owner())
        if held is not None:
            for one in self._lock.core.holders()[0]:
                if one["token"] == held.token:
                    return held, one["ttl"]
        return None

    def _late(self) -> NotOwner:
        return NotOwner(f"the lock {self.name!r} is not held here (any more)")

    def extend(self, additional_time: float, replace_ttl: bool = False) -> bool:
        """More seconds for a lock with a timeout; with `replace_ttl` so many from now."""
        checks.limited(additional_time, "additional_time")
        found = self._holds()
        if found is None:
            raise self._late()
        seconds = additional_time + (0.0 if replace_ttl else found[1] or 0.0)
        try:
            self._lock.prolong(self._owner(), max(seconds, _AT_ONCE))
        except (LockLost, NotOwner):
            raise self._late() from None
        return True

    def reacquire(self) -> bool:
        """The full timeout from now."""
        if self.timeout is None:
            return self.owned()
        return self.extend(self.timeout, replace_ttl=True)

    def __enter__(self) -> Lock:
        if not self.acquire():
            raise LockTimeout(f"the lock {self.name!r} could not be had in time")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
