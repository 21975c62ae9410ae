"""A process that is stopped in the middle of a lock's change: others are told, or go on later."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator

import pytest

import celeriac
from celeriac import _core

pytestmark = pytest.mark.skipif(
    not _core.crash_points,
    reason="this extension has no crash points: build it with CELERIAC_CRASH_POINTS=ON, "
    "as the gate's step crash does",
)


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    """A store with this process in it."""
    store = celeriac.connect(f"shm://t-{uuid.uuid4().hex[:12]}?memory=4M")
    store.lock("warm").acquire()
    yield store
    store.destroy(force=True)


def stopped_at(url: str, point: str) -> int:
    """The pid of a child that is stopped there, with the mutex of the lock `a`."""
    pid = os.fork()
    if pid == 0:
        try:
            _core.arm_crash_point(point, 1, "stop")
            lock = celeriac.connect(url).lock("a")
            lock.acquire()
            lock.release()
            time.sleep(600)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return pid


@pytest.mark.parametrize("point", ["lock.enter.joined", "lock.grant.held", "lock.leave.unlinked"])
def test_others_are_told_and_go_on_when_it_dies(store: celeriac.Store, point: str) -> None:
    held = store.lock("a")
    waits = store._core.lock("lock:a", 1)
    if point == "lock.leave.unlinked":
        pid = stopped_at(store.url, point)
    else:
        assert held.acquire()  # so that the child is stopped in the line
        held.release()
        pid = stopped_at(store.url, point)
    try:
        with pytest.raises(celeriac.LockTimeout, match="living process that doesn't run"):
            held.acquire(blocking=False)
        with pytest.raises(celeriac.LockTimeout, match="living process that doesn't run"):
            waits.enter(0.0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert held.acquire(timeout=30)
    held.release()
    assert [info.name for info in store.locks()] == ["warm"]


def test_who_waits_gives_up_while_the_line_is_stuck(store: celeriac.Store) -> None:
    lock = store._core.lock("lock:a", 1)
    holds, _ = lock.enter(0.0)
    waits, _ = lock.enter(0.0)
    next_one, _ = lock.enter(0.0)
    pid = stopped_at(store.url, "lock.enter.joined")
    try:
        lock.leave(waits)
        lock.leave(holds)
        assert lock.wait(next_one, 0.05) == 0
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert lock.wait(next_one, 30.0) > 0
    lock.release(next_one)
    assert [info.name for info in store.locks()] == ["warm"]
