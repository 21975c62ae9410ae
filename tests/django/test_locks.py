"""`cache.lock()`: one holder on the host, who never touches a value or another's lock."""

from __future__ import annotations

import importlib.util
import multiprocessing
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac.django.cache import CeleriacCache

Make = Callable[..., CeleriacCache]


def test_lock(backend: Make) -> None:
    cache = backend()
    with cache.lock("l") as lock:
        assert lock.locked()
        assert lock.owned()
        assert cache.has_key("l")
        other = cache.lock("l", blocking_timeout=0.02)
        assert not other.owned()
        assert other.acquire() is False
        assert other.acquire(blocking=False) is False
        with pytest.raises(celeriac.LockTimeout), other:
            pass
        with pytest.raises(celeriac.NotOwner):
            other.release()
    assert not lock.locked()
    assert not cache.has_key("l")
    with pytest.raises(celeriac.NotOwner):
        lock.release()


def test_a_lock_and_a_value_of_one_key(backend: Make) -> None:
    cache = backend()
    cache.set("report", {"rows": 3})
    with cache.lock("report", timeout=60) as lock:
        assert cache.get("report") == {"rows": 3}
        assert lock.extend(60)
        cache.delete("report")
        assert cache.get("report") is None, "a lock is no value"
        assert "report" in cache, "but has_key() shows it"
        assert not cache.has_key("report", version=2)
        assert cache.add("report", 4)
    assert cache.get("report") == 4


def test_a_late_release_leaves_the_lock_of_another(backend: Make) -> None:
    cache = backend()
    lock, other = cache.lock("l", timeout=0.05), cache.lock("l")
    assert lock.acquire()
    assert other.acquire()
    for late in (lock.release, lambda: lock.extend(5), lambda: lock.reacquire()):
        with pytest.raises(celeriac.NotOwner):
            late()
    assert other.owned()


@pytest.mark.parametrize("late", ["release", "reacquire"])
def test_what_the_holder_does_is_refused_when_another_holds(backend: Make, late: str) -> None:
    cache = backend()
    lock, other = cache.lock("l", timeout=0.01), cache.lock("l")
    assert lock.acquire()
    assert other.acquire()
    with pytest.raises(celeriac.NotOwner):
        getattr(lock, late)()
    assert other.owned()
    assert not lock.owned()


def _held_in_a_child(lock: Any) -> str:
    try:
        lock.release()
    except celeriac.NotOwner:
        return f"{lock.owned()} {lock.locked()} {lock.acquire(blocking=False)}"
    return "released"


@pytest.mark.parametrize("thread_local", [True, False])
def test_a_forked_child_does_not_own_the_lock(backend: Make, thread_local: bool) -> None:
    lock = backend().lock("l", thread_local=thread_local)
    assert lock.acquire()
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(_held_in_a_child(lock)))
    process.start()
    assert ours.poll(60)
    assert ours.recv() == "False True False"
    process.join()
    lock.release()
    assert not lock.locked()


def test_lock_timeout_and_extend(backend: Make) -> None:
    cache = backend()
    lock = cache.lock("l", timeout=60)
    assert lock.acquire()
    assert lock.extend(60)
    assert 60 < (lock._holds() or (0, 0))[1] <= 120
    lock.timeout = 0.1
    assert lock.reacquire()
    began = time.monotonic()
    assert cache.lock("l").acquire()  # free again when the timeout has passed
    assert time.monotonic() - began < 30
    with pytest.raises(celeriac.NotOwner):
        lock.release()
    with pytest.raises(celeriac.NotOwner):
        lock.extend(5)


def test_who_waits_for_a_lock_is_woken(backend: Make) -> None:
    cache = backend()
    lock = cache.lock("l", thread_local=False)
    lock.acquire()
    threading.Timer(0.1, lock.release).start()
    assert cache.lock("l").acquire(blocking_timeout=60)


GREEN = """
from gevent import monkey
monkey.patch_all()
import signal, sys, gevent
signal.alarm(50)  # a sleep of the core that blocks all ends here
from celeriac.django.cache import CeleriacCache
cache = CeleriacCache(sys.argv[1], {})
inside = []
def work():
    with cache.lock("l", blocking_timeout=20) as lock:
        assert not inside
        inside.append(lock)
        gevent.sleep(0.01)
        inside.remove(lock)
        return lock.owned()
print([greenlet.get() for greenlet in [gevent.spawn(work) for _ in range(5)]])
lock = cache.lock("l")
with lock:
    print(lock.owned(), gevent.spawn(lock.owned).get())
"""


def test_a_greenlet_that_waits_for_a_lock_lets_its_holder_run(
    location: str, start_python: Callable[..., subprocess.Popen[str]]
) -> None:
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent isn't here: pip install '.[test]'")
    process = start_python(GREEN, location, stderr=None)
    out, _ = process.communicate(timeout=60)
    assert out.split("\n") == [str([True] * 5), "True False", ""]


def _die_with_the_lock(location: str, ready: Any) -> None:
    CeleriacCache(location, {}).lock("l").acquire()
    ready.set()
    time.sleep(60)


def test_the_lock_of_the_dead_is_free(backend: Make, location: str) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=_die_with_the_lock, args=(location, ready))
    process.start()
    assert ready.wait(30)
    lock = backend().lock("l")
    assert lock.acquire(blocking=False) is False
    threading.Timer(0.1, process.kill).start()
    assert lock.acquire(blocking_timeout=60)
    process.join()
