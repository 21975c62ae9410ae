"""Waiting for results: a sleep that ends when the result is written, and no polling.

Who waits for one task sleeps on its key. Who waits for several sleeps on one entry that is changed
after every result, the *bell*, and is announced in another so that nobody rings while nobody
listens::

    who waits                       who stores a result
    ---------                       -------------------
    announce itself                 store it
    note the bell's change count    is anybody announced?  then ring
    look at the results
    sleep until the count changes

- W1  A result that was stored before the look is seen; one that is stored after it rings, because
  the announcement was there before.
- W2  Who is killed between storing and ringing wakes the sleepers by its death, as every death
  does.
- W3  An announcement of a dead process costs others a ring for nothing, until the next who
  announces itself removes it.

Under gevent and eventlet the sleep is the clock's, see :mod:`celeriac.green`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from celery import states
from celery.exceptions import TimeoutError
from kombu.utils.compat import detect_environment
from kombu.utils.encoding import bytes_to_str

if TYPE_CHECKING:
    from celeriac.store import Store
    from celeriac.table import Table

__all__ = ["BELL", "LISTENERS", "Waiting"]

#: Changes after every result while somebody is announced.
BELL = b"celeriac-bell"

#: Who waits for several results. Whoever stores one rings the bell if this is there.
LISTENERS = b"celeriac-listeners"

#: Longest single sleep, in seconds. Only a bound on how late a store that was destroyed and made
#: anew is noticed; nothing is polled.
LONGEST_WAIT = 60.0

#: Shortest time between two looks at several results, in seconds: what comes in between is seen
#: together, and who waits leaves the processor to those who work.
LOOK = 0.001

_numbers = count()


class Waiting:
    """The part of a result backend that waits. Thread-safe, fork-safe."""

    _cache: Any
    get_key_for_task: Any
    decode_result: Any
    _ensure_not_eager: Any
    stored: Any

    if TYPE_CHECKING:

        @property
        def table(self) -> Table:
            """The table of results."""

        @property
        def store(self) -> Store:
            """The store of the table."""

        def recover(self) -> int:
            """Carry out what the dead have left undone."""

    def wait_for_pending(
        self,
        result: Any,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        callback: Any = None,
        propagate: bool = True,
    ) -> Any:
        """What ``AsyncResult.get()`` calls: wait until a task is ready, and return or raise.

        ``on_message`` is called with the meta data of each state that was seen meanwhile.

        Raises:
            celery.exceptions.TimeoutError: it was not ready in ``timeout`` seconds.
        """
        for _, meta in self.get_many(
            [result.id],
            timeout=timeout,
            interval=interval,
            on_message=on_message,
            on_interval=on_interval,
        ):
            result._maybe_set_cache(meta)
            if on_interval is not None:
                on_interval()  # where Celery raises the error of a task before this one, first
            return result.maybe_throw(propagate=propagate, callback=callback)
        raise TimeoutError("The operation timed out.")

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,
        on_interval: Any = None,
    ) -> Any:
        """Wait until a task is ready; returns its meta data.

        ``interval`` is only how often ``on_interval`` is called.

        Raises:
            celery.exceptions.TimeoutError: it was not ready in ``timeout`` seconds.
        """
        for _, meta in self.get_many(
            [task_id], timeout=timeout, interval=interval, on_interval=on_interval
        ):
            return meta
        raise TimeoutError("The operation timed out.")

    def get_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float | None = 0.5,
        no_ack: bool = True,
        on_message: Any = None,
        on_interval: Any = None,
        max_iterations: int | None = None,
        READY_STATES: frozenset[str] = states.READY_STATES,
        parts: bool = False,
    ) -> Iterator[tuple[str, Any]]:
        """Yield (id, meta) of tasks as they get ready.

        :param interval: how often ``on_interval`` is called; nothing else.
        :param parts: results that are there for a chord's callback only count too.

        Raises:
            celery.exceptions.TimeoutError: not all were ready in ``timeout`` seconds.
        """
        self._ensure_not_eager()
        interval = interval or 0.5
        deadline = None if timeout is None else time.monotonic() + timeout
        next_interval = time.monotonic() + interval
        pending = dict.fromkeys(bytes_to_str(task_id) for task_id in task_ids)
        for task_id in list(pending):
            cached = self._cached(task_id, READY_STATES)
            if cached is not None:
                del pending[task_id]
                yield task_id, cached
        look = _Look(self, pending, READY_STATES, on_message, parts)
        timed = bool(max_iterations) or _does_anything(on_interval)
        iterations = 0
        with self._announced(len(pending) > 1):
            while pending:
                key = BELL if len(pending) > 1 else self.get_key_for_task(next(iter(pending)))
                seen = self.table.change_count(key)  # before looking: what comes later wakes us
                looked = time.monotonic()
                ready = look()
                yield from ready
                if ready:
                    continue
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    raise TimeoutError(f"Operation timed out ({timeout})")
                if now >= next_interval:
                    next_interval = now + interval
                    iterations += 1
                    if on_interval is not None:
                        on_interval()
                    if max_iterations and iterations >= max_iterations:
                        return
                until = [now + LONGEST_WAIT]
                if deadline is not None:
                    until.append(deadline)
                if timed:
                    until.append(next_interval)
                if self._sleep(key, seen, max(min(until) - now, 0.0)):
                    if key == BELL:
                        time.sleep(max(looked + LOOK - time.monotonic(), 0.0))
                    elif self.table.get(key) is None:
                        self.recover()  # not that result; maybe somebody died

    def _cached(self, task_id: str, ready_states: frozenset[str]) -> Any:
        try:
            meta = self._cache[task_id]
        except KeyError:
            return None
        return meta if meta["status"] in ready_states else None

    def _sleep(self, key: bytes, seen: int, timeout: float) -> bool:
        """Until the change count isn't ``seen`` any more; False when the time was over."""
        if detect_environment() == "eventlet":  # there is only the clock to wait on
            time.sleep(min(timeout, 0.02))
            return False
        return self.table.wait_for_change(key, seen, timeout)

    # --- the bell -------------------------------------------------------------------------

    def ring(self) -> None:
        """Wake all who wait for several results, and who watches over the dead."""
        self.table.set(BELL, next(_numbers), ttl=None)

    @contextmanager
    def _announced(self, several: bool) -> Iterator[None]:
        """Let others ring the bell meanwhile."""
        if not several:
            yield
            return
        me = (self.store._core.identity(), os.getpid(), next(_numbers))
        self._listeners(add=me)
        try:
            yield
        finally:
            if me[1] == os.getpid():  # not in a forked child that inherited the generator
                self._listeners(remove=me)

    def _listeners(self, add: Any = None, remove: Any = None) -> None:
        table, is_alive = self.table, self.store._core.is_alive
        while True:
            value, version = table.get_versioned(LISTENERS)
            others = [each for each in value or () if each != remove and is_alive(each[0])]
            if add is not None:
                others.append(add)
            if others:
                if table.compare_and_set(LISTENERS, version, tuple(others), ttl=None):
                    return
            elif version == 0 or table.compare_and_delete(LISTENERS, version):
                return


class _Look:
    """Looks at the results that are still awaited."""

    def __init__(
        self,
        backend: Waiting,
        pending: dict[str, Any],
        ready_states: frozenset[str],
        on_message: Any,
        parts: bool,
    ) -> None:
        self.backend = backend
        self.pending = pending  # values: what was stored at the last look, when that matters
        self.ready_states = ready_states
        self.on_message = on_message
        self.parts = parts

    def __call__(self) -> list[tuple[str, Any]]:
        """Those that are ready now; they are awaited no more."""
        backend, pending, on_message = self.backend, self.pending, self.on_message
        ids = list(pending)
        values = backend.stored([backend.get_key_for_task(each) for each in ids], self.parts)
        ready = []
        for task_id, value in zip(ids, values, strict=True):
            if not value or value == pending[task_id]:
                continue
            pending[task_id] = value
            meta = backend.decode_result(value)
            if on_message is not None:
                on_message(meta)
            if meta["status"] in self.ready_states:
                if meta["status"] == states.SUCCESS:
                    backend._cache[task_id] = meta
                del pending[task_id]
                ready.append((task_id, meta))
        return ready


def _does_anything(on_interval: Any) -> bool:
    """Whether calling it matters: Celery passes an empty promise when nobody asked for it."""
    if on_interval is None:
        return False
    listeners = getattr(on_interval, "listeners", ())
    return bool(getattr(on_interval, "fun", True) or any(each is not None for each in listeners))
