"""A resize that a stopped process keeps from being finished: an error, and the ceiling as before.

Needs an extension with crash points, as the gate's step crash builds one.
"""

from __future__ import annotations

import os
import signal
import uuid

import pytest

import celeriac
from celeriac import _core

pytestmark = pytest.mark.skipif(
    not _core.crash_points,
    reason="this extension has no crash points: build it with CELERIAC_CRASH_POINTS=ON, "
    "as the gate's step crash does",
)

MIB = 1 << 20


@pytest.mark.parametrize("point", ["cache.set.copied", "cache.set.counted"])
def test_a_writer_that_is_stopped(point: str) -> None:
    """It is writing into a segment that has to leave, or holds a shard's mutex."""
    store = celeriac.connect(f"shm://t-{uuid.uuid4().hex[:12]}?memory=16M")
    cache = store.cache()
    for i in range(10_000):
        cache.set(f"k{i}", "v" * 1000)
    child = os.fork()
    if child == 0:
        cache.get("k1")
        _core.arm_crash_point(point, 1, "stop")
        cache.set("large", "l" * 400_000)
        os._exit(0 if cache.get("large") in (None, "l" * 400_000) else 1)
    try:
        assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
        before = store.stats()["memory_limit"]
        with pytest.raises(celeriac.LockTimeout, match="stopped"):
            store.resize("4M")
        assert store.stats()["memory_limit"] == before
    finally:
        os.kill(child, signal.SIGCONT)
        ended = os.waitpid(child, 0)[1]
    assert ended == 0
    assert store.resize("4M") == 4 * MIB
    assert store.stats()["memory_allocated"] <= 4 * MIB
    assert store.stats()["corrupt"] == 0
    assert cache.get("large") in (None, "l" * 400_000)
    store.destroy()
