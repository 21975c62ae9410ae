"""`cache.lock()`: a lock of the whole host, with the calls of the one that django-redis gives.

A lock is an entry of a table, which is never evicted, and whose keys are not the cache's: a lock
and a cached value may have the same key, and neither changes the other (`cache.has_key()` alone
looks at both, as code that comes from django-redis expects). The entry names the process that
holds the lock, and the acquisition. Who waits sleeps until that entry changes; when the holder
dies, the store wakes all who wait, and one of them replaces the entry.

    absent --add--> held --compare_and_delete--> absent
    held, its process dead, or its timeout over --add or compare_and_set--> held, by another

- L1  Whatever the holder does to its entry is one step, under the condition that the entry is its
  own still: who is late by any time never touches the lock of another.
- L2  The holder is a process, and in it a thread or an object (`thread_local`). A forked child
  inherits the object, not the lock: it holds nothing until it acquires.
- L3  Killed at any instruction: the entry names a dead process, and the next to ask takes the lock.
"""

from __future__ import annotations

import secrets
import threading
import time
from types import TracebackType
from typing import Any

import celeriac
from celeriac import checks, green
from celeriac.errors import LockTimeout, NotOwner

TABLE = "celeriac.django.locks"


def _process(mark: object) -> str:
    return str(mark).partition(" ")[0]


def is_locked(store: celeriac.Store, key: str) -> bool:
    """Whether a living process holds the lock of that (full) key."""
    mark = store.table(TABLE).get(key)
    return mark is not None and store._core.is_alive(_process(mark))


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
        self._store = store
        self._table = store.table(TABLE)
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
        deadline = None if blocking_timeout is None else time.monotonic() + blocking_timeout
        mark = f"{self._store._core.identity()} {secrets.token_hex(8)}"
        while True:
            seen = self._table.change_count(self.name)
            if self._take(mark):
                self._own.mark = mark
                return True
            left = None if deadline is None else deadline - time.monotonic()
            if not blocking or (left is not None and left <= 0):
                return False
            ends = self._held_for()  # nobody changes anything when a timeout passes
            if ends is not None:
                left = ends if left is None else min(left, ends)
            self._table.wait_for_change(self.name, seen, green.until_a_look(left))

    def _take(self, mark: str) -> bool:
        if self._table.add(self.name, mark, self.timeout):
            return True
        other, version = self._table.get_versioned(self.name)
        if version == 0:
            return self._table.add(self.name, mark, self.timeout)
        if self._store._core.is_alive(_process(other)):
            return False
        return self._table.compare_and_set(self.name, version, mark, self.timeout)

    def _held_for(self) -> float | None:
        try:
            return self._table.ttl(self.name)
        except KeyError:
            return 0.0

    def release(self) -> None:
        """Give the lock back. Raises NotOwner when it isn't held by this one (any more)."""
        _, version = self._held()
        self._own.mark = None
        if not self._table.compare_and_delete(self.name, version):
            raise self._late()

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return is_locked(self._store, self.name)

    def owned(self) -> bool:
        """Whether this one holds it."""
        return self._held()[1] != 0

    def _held(self) -> tuple[str, int]:
        """The mark of our acquisition, and the version of its entry; 0 where it isn't ours."""
        mark = getattr(self._own, "mark", None)
        if mark is None or _process(mark) != self._store._core.identity():
            return "", 0
        found, version = self._table.get_versioned(self.name)
        return mark, version if found == mark else 0

    def _late(self) -> NotOwner:
        return NotOwner(f"the lock {self.name!r} is not held here (any more)")

    def extend(self, additional_time: float, replace_ttl: bool = False) -> bool:
        """More seconds for a lock with a timeout; with `replace_ttl` so many from now."""
        checks.limited(additional_time, "additional_time")
        mark, version = self._held()
        seconds = additional_time + (0.0 if replace_ttl else self._held_for() or 0.0)
        if version == 0 or not self._table.compare_and_set(self.name, version, mark, seconds):
            raise self._late()
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


class _Held:
    mark: str | None = None
