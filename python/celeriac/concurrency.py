"""Concurrency limits: at most so many at once in the whole store."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple

from celeriac import checks, green
from celeriac._core import Concurrency as CoreConcurrency
from celeriac.errors import LockTimeout, NotOwner


class ConcurrencyInfo(NamedTuple):
    """A concurrency limit that somebody is in; see `Store.concurrencies`."""

    name: str
    limit: int
    in_use: int


class Slot:
    """One of the places of a :class:`Concurrency`; true while it is held. ``with`` gives it back.

    Made by :meth:`Concurrency.acquire`. One that wasn't had in time is false, and `with` of it
    raises LockTimeout. It is the process's that acquired it, not a forked child's.
    """

    __slots__ = ("_core", "_name", "_pid", "_place", "_timeout")

    def __init__(
        self, core: CoreConcurrency, name: str, place: int | None, timeout: float | None
    ) -> None:
        self._core = core
        self._name = name
        self._place = place
        self._timeout = timeout
        self._pid = os.getpid()

    def __bool__(self) -> bool:
        return self._place is not None and self._pid == os.getpid()

    def __repr__(self) -> str:
        return f"<Slot of {self._name!r}{'' if self else ', not held'}>"

    def release(self) -> None:
        """Give it back. Raises NotOwner when this process doesn't hold it (any more)."""
        place, self._place = self._place, None
        if place is None:
            raise NotOwner(f"this slot of the concurrency limit {self._name!r} isn't held")
        self._core.leave(place)

    def _check(self) -> None:
        if self._place is None:
            raise LockTimeout(
                f"no slot of the concurrency limit {self._name!r} was free within "
                f"{self._timeout} s: {self._core.inside()} of {self._core.limit()} are in use"
            )

    def __enter__(self) -> Slot:
        self._check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self:  # released inside, or left by a forked child: nothing to give back
            self.release()


class Concurrency:
    """At most ``limit`` at once, of all processes of the store; slots of the dead come back.

    Made by :meth:`celeriac.Store.concurrency`. Thread-safe, fork-safe: a forked child holds none of
    its parent's slots. Pickles as its store's URL, its name and its limit. Crash-safe: the slots of
    a killed process are free as soon as its death is noticed, which who waits does within
    milliseconds, without polling.
    """

    __slots__ = ("_again", "_core", "_held", "name")

    def __init__(self, core: CoreConcurrency, name: str, again: Callable[[], Concurrency]) -> None:
        self._core = core
        self._again = again
        self._held = threading.local()
        self.name = name

    def __repr__(self) -> str:
        return f"<Concurrency {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()

    def acquire(self, timeout: float | None = None) -> Slot:
        """A slot; a false one when none was free in time, and ``with`` of that raises LockTimeout.

        :param timeout: seconds to wait; None waits for ever, 0 doesn't wait. Waiting costs no CPU
            and releases the interpreter lock; who waits has no place in a line.
        """
        checks.check_ttl(timeout, "timeout")
        if green.patched():
            place = green.wait(lambda: self._core.enter(0), timeout)
        else:
            place = self._core.enter(timeout)
        return Slot(self._core, self.name, place, timeout)

    def in_use(self) -> int:
        """How many slots are held now, of all processes."""
        return self._core.inside()

    @property
    def limit(self) -> int:
        """How many may be held: what was named last, by anybody."""
        return self._core.limit()

    def __enter__(self) -> Slot:
        slot = self.acquire()
        slots: list[Slot] = self._held.__dict__.setdefault("slots", [])
        slots.append(slot)
        return slot

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        slots: list[Slot] = self._held.slots
        slots.pop().__exit__(kind, value, traceback)
