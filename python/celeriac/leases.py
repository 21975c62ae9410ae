"""What is due at a time, for those who hold leases: to renew them, and to be told that one is over.

An alarm is known by the token of its lease, and may be set anew meanwhile or forgotten; who is
called looks himself whether the lease is his still. Each kind has a daemon thread, which is started
by its first alarm and sleeps until the earliest: `renewals` calls what takes no time, so that no
lease ends while a user's `on_lost`, which `losses` calls, is at work. A forked child has none of
its parent's alarms.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("celeriac")

Call = Callable[[int], object]


class Alarms:
    """Calls by token, each at its time. Thread-safe, fork-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.forked()

    def forked(self) -> None:
        """Begins anew: its thread and its lock were the parent's."""
        self._condition = threading.Condition()
        self._due: dict[int, tuple[float, Call]] = {}
        self._order: list[tuple[float, int]] = []
        self._thread: threading.Thread | None = None

    def watch(self, token: int, seconds: float, call: Call) -> None:
        """Do ``call(token)`` when so many seconds are over, unless set anew or forgotten."""
        with self._condition:
            when = time.monotonic() + seconds
            self._due[token] = when, call
            heapq.heappush(self._order, (when, token))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._condition.notify()

    def forget(self, token: int) -> None:
        """Nobody is to be called."""
        with self._condition:
            self._due.pop(token, None)

    def _next(self) -> tuple[int, Call]:
        """Waits for the next that is due."""
        with self._condition:
            while True:
                order = self._order
                while order and self._due.get(order[0][1], (None,))[0] != order[0][0]:
                    heapq.heappop(order)
                left = order[0][0] - time.monotonic() if order else None
                if left is not None and left <= 0:
                    token = heapq.heappop(order)[1]
                    return token, self._due.pop(token)[1]
                self._condition.wait(left)

    def _run(self) -> None:
        while True:
            token, call = self._next()
            try:
                call(token)
            except Exception:
                logger.exception("on_lost of a lock failed")
            del call


losses = Alarms("celeriac-leases")
renewals = Alarms("celeriac-renewals")
turn = threading.Lock()
"""Held by who renews a lease that is another thread's, and by who releases one."""


def _forked() -> None:
    global turn
    turn = threading.Lock()
    losses.forked()
    renewals.forked()


os.register_at_fork(after_in_child=_forked)


def forget(token: int) -> None:
    """It was given back: it is neither renewed nor told about."""
    renewals.forget(token)
    losses.forget(token)
