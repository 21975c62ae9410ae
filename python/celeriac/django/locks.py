"""`cache.lock()`: a lock of the whole host, with the calls of the one that django-redis gives.

The truth is an entry of a table, which is never evicted: it names the process that holds the lock,
and the acquisition. Who waits sleeps until that entry changes; when the holder dies, the store
wakes all who wait, and one of them replaces the entry. For the holder's key there is an entry in
the cache as well, so that `cache.has_key()` shows the lock; nothing depends on it.

    absent --add--> held --delete--> absent
    held, its process dead, or its timeout over --add or compare_and_set--> held, by another

Killed at any instruction: the entry names a dead process, and the next to ask takes the lock.
"""

from __future__ import annotations

import secrets
import threading
import time
from types import TracebackType
from typing import Any

import celeriac
from celeriac import checks
from celeriac.errors import LockTimeout, NotOwner

TABLE = "celeriac.django.locks"


class Lock:
    """A lock by key. Made by `cache.lock()`.

    :param timeout: seconds, above zero, after which the lock is free again, held or not; None = it
        is held until released, or until the process ends.
    :param blocking_timeout: most seconds that `acquire` waits; None = no limit.
    :param thread_local: only the thread that acquired may release; else any that has the object.
    """

    def __init__(
        self,
        store: celeriac.Store,
        cache: celeriac.Cache,
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
        self._store = store
        self._table = store.table(TABLE)
        self._cache = cache
        self.name = key
        self.timeout = timeout
        self.blocking = blocking
        self.blocking_timeout = blocking_timeout
        self._own: Any = threading.local() if thread_local else _Held()
        self._own.mark = None

    @staticmethod
    def _check_wait(blocking_timeout: float | None) -> None:
        if blocking_timeout is not None:
            checks.limited(blocking_timeout, "blocking_timeout", 0)

    def acquire(self, blocking: bool | None = None, blocking_timeout: float | None = None) -> bool:
        """Take the lock; False when it isn't to be had (in time)."""
        if blocking is None:
            blocking = self.blocking
        if blocking_timeout is None:
            blocking_timeout = self.blocking_timeout
        self._check_wait(blocking_timeout)
        deadline = None if blocking_timeout is None else time.monotonic() + blocking_timeout
        mark = f"{self._store._core.identity()} {secrets.token_hex(8)}"
        while True:
            seen = self._table.change_count(self.name)
            if self._take(mark):
                self._own.mark = mark
                self._cache.set(self.name, mark, self.timeout)
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if not blocking or (left is not None and left <= 0):
                return False
            ends = self._held_for()  # nobody changes anything when a timeout passes
            if ends is not None:
                left = ends if left is None else min(left, ends)
            self._table.wait_for_change(self.name, seen, left)

    def _take(self, mark: str) -> bool:
        if self._table.add(self.name, mark, self.timeout):
            return True
        other, version = self._table.get_versioned(self.name)
        if version == 0:
            return self._table.add(self.name, mark, self.timeout)
        if self._store._core.is_alive(str(other).partition(" ")[0]):
            return False
        return self._table.compare_and_set(self.name, version, mark, self.timeout)

    def _held_for(self) -> float | None:
        try:
            return self._table.ttl(self.name)
        except KeyError:
            return 0.0

    def release(self) -> None:
        """Give the lock back. Raises NotOwner when it isn't held by this one (any more)."""
        mark = getattr(self._own, "mark", None)
        self._own.mark = None
        if mark is None or self._table.get(self.name) != mark:
            raise NotOwner(f"the lock {self.name!r} is not held here (any more)")
        self._cache.delete(self.name)
        self._table.delete(self.name)

    def locked(self) -> bool:
        """Whether anybody holds it."""
        mark = self._table.get(self.name)
        return mark is not None and self._store._core.is_alive(str(mark).partition(" ")[0])

    def owned(self) -> bool:
        """Whether this one holds it."""
        mark = getattr(self._own, "mark", None)
        return mark is not None and self._table.get(self.name) == mark

    def extend(self, additional_time: float, replace_ttl: bool = False) -> bool:
        """More seconds for a lock with a timeout; with `replace_ttl` so many from now."""
        checks.limited(additional_time, "additional_time")
        if not self.owned():
            raise NotOwner(f"the lock {self.name!r} is not held here (any more)")
        left = 0.0 if replace_ttl else self._held_for() or 0.0
        self._cache.touch(self.name, left + additional_time)
        return self._table.touch(self.name, left + additional_time)

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


class _Held:
    mark: str | None = None
