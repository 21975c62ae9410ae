"""Ctrl-C and SIGTERM as a flag that the demo's waits look at.

A handler that raises could strike between starting a process and noting that it runs. Here the
handler only notes the signal; each wait of the demo is a loop around `check()` or `sleep()`, which
raise `Interrupted` in a place where everything that was started is known.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from .errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STEP = 0.05

_received: int | None = None


@contextmanager
def noted() -> Iterator[None]:
    """Within the block the signals are noted instead of doing what they do. Main thread only."""
    global _received
    _received = None
    before = {number: signal.signal(number, _note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raise `Interrupted` when a signal has come."""
    if _received is not None:
        raise Interrupted(_received)


def sleep(seconds: float) -> None:
    """Sleep; raise `Interrupted` soon after a signal comes."""
    end = time.monotonic() + seconds
    while True:
        check()
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, STEP))


def _note(number: int, _: FrameType | None) -> None:
    global _received
    _received = number
