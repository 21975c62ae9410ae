"""How long a message of a killed consumer takes to reach another that waits for it.

A victim reserves a message and says so by a pipe; a survivor is blocked in get(). The victim is
killed, and both moments are taken on the monotonic clock, which all processes share.
"""

from __future__ import annotations

import os
import select
import signal
import struct
import time
import traceback
from collections.abc import Callable
from typing import Final

import celeriac

_TIME: Final = struct.Struct("=d")
_QUEUE: Final = "redelivery"
PATIENCE: Final = 10.0  # seconds after which a trial has failed


def _fork(run: Callable[[int], None]) -> tuple[int, int]:
    """A child and the reading end of its pipe."""
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        try:
            run(into)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.close(into)
    return pid, out


def _told(fd: int) -> float | None:
    """The next moment that a child tells, None when none comes in time."""
    if not select.select([fd], [], [], PATIENCE)[0]:
        return None
    data = os.read(fd, _TIME.size)
    return float(_TIME.unpack(data)[0]) if len(data) == _TIME.size else None


def _survive(url: str, into: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    queue = celeriac.connect(url).queue(_QUEUE)
    while True:
        message = queue.get(None)
        now = time.monotonic()
        if message is None:
            continue
        message.ack()
        if message.deliveries > 1:
            os.write(into, _TIME.pack(now))


def _reserve(url: str, into: int) -> None:
    queue = celeriac.connect(url).queue(_QUEUE)
    message = queue.get(PATIENCE)
    if message is None:
        return
    os.write(into, _TIME.pack(time.monotonic()))
    time.sleep(PATIENCE * 2)
    message.ack()


def measure(url: str, trials: int) -> tuple[list[float], list[str]]:
    """Latencies in seconds, and what went wrong. The caller has no thread and no open store."""
    latencies: list[float] = []
    wrong: list[str] = []
    with celeriac.connect(url) as store:
        store.queue(_QUEUE)
    for trial in range(trials):
        with celeriac.connect(url) as store:
            store.queue(_QUEUE).put(b"x" * 100)
        victim, told = _fork(lambda into: _reserve(url, into))
        reserved = _told(told)
        # A survivor that comes after the reservation waits, and finds nothing.
        survivor, heard = _fork(lambda into: _survive(url, into))
        try:
            if reserved is None:
                wrong.append(f"trial {trial}: the victim got nothing")
                continue
            time.sleep(0.03)
            begun = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            received = _told(heard)
            if received is None:
                wrong.append(f"trial {trial}: not redelivered within {PATIENCE:.0f} s")
            else:
                latencies.append(received - begun)
        finally:
            for pid, fd in ((victim, told), (survivor, heard)):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                os.close(fd)
    with celeriac.connect(url) as store:
        left = store.queue(_QUEUE).counts()
        if left.ready or left.reserved or left.delayed or left.dead:
            wrong.append(f"messages left behind: {left}")
        store.queue(_QUEUE).delete()
    return latencies, wrong
