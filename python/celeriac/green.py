"""Waiting under gevent, where one thread runs all greenlets.

A sleep in the core blocks the thread, and with it the very greenlet that is waited for. Where
gevent has patched threads or time, nothing sleeps in the core: who waits asks again and again, and
lets the others run in between, after 1 ms at first and every 20 ms at last. gevent's thread pool
would wait without asking, but its few threads are needed for name look-ups, and a wait whose
greenlet has been killed would go on there and take a message for nobody.

Locks and flights need no more than that: `threading.local` and contexts are each greenlet's own.
gevent is never imported here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

_FIRST: Final = 0.001
_LONGEST: Final = 0.02
_LOOK: Final = 0.25
"""Seconds after which who waits for another process looks whether it lives: nobody wakes us."""

_Found = TypeVar("_Found")


def patched() -> bool:
    """Whether a sleep of this thread would stop other greenlets."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and any(map(monkey.is_module_patched, ("time", "threading")))


def wait(look: Callable[[], _Found], timeout: float | None) -> _Found:
    """What ``look()`` gives as soon as that is true, or else after ``timeout`` seconds."""
    sleep = sys.modules["gevent"].sleep
    ends = None if timeout is None else time.monotonic() + timeout
    pause = _FIRST
    while True:
        found = look()
        left = pause if ends is None else ends - time.monotonic()
        if found or left <= 0:
            return found
        sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST)


def until_a_look(timeout: float | None) -> float | None:
    """How long to wait for what only the death of another process may bring about."""
    if not patched():
        return timeout
    return _LOOK if timeout is None else min(timeout, _LOOK)
