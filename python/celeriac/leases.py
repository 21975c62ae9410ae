"""Tells holders of leases that theirs is over: one daemon thread, which is started by the first
lease that somebody wants to be told about, and sleeps until the earliest of them ends.

A lease is known by its token. It may be renewed meanwhile (`watch` again) or given back (`forget`);
who is to be told looks himself whether it is his still. A forked child watches none of its
parent's.
"""

from __future__ import annotations

import heapq
import logging
import os
import threading
import time
from collections.abc import Callable

logger = logging.getLogger("celeriac")

_condition = threading.Condition()
_ends: dict[int, tuple[float, Callable[[int], object]]] = {}
_order: list[tuple[float, int]] = []
_thread: threading.Thread | None = None


def _forked() -> None:
    global _condition, _thread
    _condition = threading.Condition()
    _thread = None
    _ends.clear()
    _order.clear()


os.register_at_fork(after_in_child=_forked)


def watch(token: int, seconds: float, tell: Callable[[int], object]) -> None:
    """Call ``tell(token)`` when so many seconds are over, unless watched or forgotten meanwhile."""
    global _thread
    with _condition:
        ends = time.monotonic() + seconds
        _ends[token] = ends, tell
        heapq.heappush(_order, (ends, token))
        if _thread is None or not _thread.is_alive():
            _thread = threading.Thread(target=_run, name="celeriac-leases", daemon=True)
            _thread.start()
        _condition.notify()


def forget(token: int) -> None:
    """It was given back: nobody is to be told."""
    with _condition:
        _ends.pop(token, None)


def _next() -> tuple[int, Callable[[int], object]]:
    """Waits for the next lease that is over."""
    with _condition:
        while True:
            while _order and _ends.get(_order[0][1], (None,))[0] != _order[0][0]:
                heapq.heappop(_order)
            left = _order[0][0] - time.monotonic() if _order else None
            if left is not None and left <= 0:
                token = heapq.heappop(_order)[1]
                return token, _ends.pop(token)[1]
            _condition.wait(left)


def _run() -> None:
    while True:
        token, tell = _next()
        try:
            tell(token)
        except Exception:
            logger.exception("on_lost of a lock failed")
        del tell
