"""Caches: of many threads and processes that miss one key, one computes."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import celeriac
from celeriac import Cache, Store, single_flight

Python = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache("flights")


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def flights(store: Store) -> list[object]:
    return store.table(single_flight.TABLE).items()


def test_a_hundred_threads_call_the_function_once(store: Store, cache: Cache) -> None:
    calls, results = [], []
    start = threading.Barrier(100)

    def compute() -> str:
        calls.append(1)
        time.sleep(0.2)
        return "value"

    def ask() -> None:
        start.wait()
        results.append(cache.get_or_set("k", compute, wait=60))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["value"] * 100
    assert len(calls) == 1
    assert flights(store) == []


def test_a_hundred_processes_call_the_function_once(
    store: Store, cache: Cache, python: Python, tmp_path: Path
) -> None:
    # Forked from one, so that a hundred interpreters need not start.
    process = python(f"""
import os
cache = store.cache("flights")

def compute():
    with open({str(tmp_path / "calls")!r}, "a") as calls:
        calls.write("called\\n")
    time.sleep(0.5)
    return ["value"]

ready, go = os.pipe(), os.pipe()
children = []
for _ in range(100):
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b".")
        os.read(go[0], 1)
        os._exit(0 if cache.get_or_set("k", compute, wait=30) == ["value"] else 1)
    children.append(pid)
for _ in children:
    os.read(ready[0], 1)
os.write(go[1], b"." * 100)
failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in children)
print("failed:", failed, flush=True)
""")
    assert line(process) == "failed: 0"
    assert (tmp_path / "calls").read_text() == "called\n"
    assert cache.get("k") == ["value"]
    assert flights(store) == []


COMPUTES = """
cache = store.cache("flights")
def compute():
    print("computing", flush=True)
    sys.stdin.readline()
    return "theirs"
print(cache.get_or_set("k", compute), flush=True)
"""


def test_waiting_ends_with_the_computation(cache: Cache, python: Python) -> None:
    process = python(COMPUTES)
    assert line(process) == "computing"
    timer = threading.Timer(0.2, lambda: (process.stdin.write("\n"), process.stdin.flush()))
    timer.start()
    assert cache.get_or_set("k", lambda: "ours", wait=30) == "theirs"
    assert line(process) == "theirs"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_another_takes_over_at_once_when_the_process_dies(
    store: Store, cache: Cache, python: Python, how: signal.Signals
) -> None:
    process = python(COMPUTES)
    assert line(process) == "computing"
    threading.Timer(0.2, lambda: process.send_signal(how)).start()
    began = time.monotonic()
    assert cache.get_or_set("k", lambda: "ours", wait=60) == "ours"
    assert time.monotonic() - began < 30  # not by the timeout
    assert flights(store) == []


def test_a_flight_of_one_who_died_before(cache: Cache, python: Python) -> None:
    process = python(COMPUTES)
    assert line(process) == "computing"
    process.kill()
    process.wait()
    assert cache.get_or_set("k", lambda: "ours", wait=60) == "ours"


def test_another_takes_over_when_the_process_closes_the_store(cache: Cache, python: Python) -> None:
    process = python("""
cache = store.cache("flights")
def compute():
    print("computing", flush=True)
    sys.stdin.readline()
    store.close()
    print("closed", flush=True)
    time.sleep(60)
cache.get_or_set("k", compute)
""")
    assert line(process) == "computing"
    timer = threading.Timer(0.2, lambda: (process.stdin.write("\n"), process.stdin.flush()))
    timer.start()
    assert cache.get_or_set("k", lambda: "ours", wait=50) == "ours"
    assert line(process) == "closed"


def test_a_function_that_never_returns_holds_up_nobody_for_ever(
    cache: Cache, python: Python
) -> None:
    process = python(COMPUTES)
    assert line(process) == "computing"
    assert cache.get_or_set("k", lambda: "ours", wait=0.1) == "ours"
    assert cache.get("k") == "ours"
    process.stdin.write("\n")
    process.stdin.flush()
    assert line(process) == "ours"  # what was set first stays


def test_a_stopped_process_is_not_waited_for_longer_than_wait(cache: Cache, python: Python) -> None:
    process = python(COMPUTES)
    assert line(process) == "computing"
    process.send_signal(signal.SIGSTOP)
    assert cache.get_or_set("k", lambda: "ours", wait=0.1) == "ours"
    process.send_signal(signal.SIGCONT)


def test_a_fork_inside_the_function_leaves_the_flight_with_the_parent(
    store: Store, cache: Cache
) -> None:
    def compute() -> int:
        child = os.fork()
        if child == 0:
            return 0
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert len(flights(store)) == 1  # the child has left the function, and ended
        return os.getpid()

    try:
        value = cache.get_or_set("k", compute, None)
    except BaseException:
        os._exit(1)
    if value == 0:
        cache._core.delete("k")  # as if it had never been stored: delete() would spoil the flight
        os._exit(0)
    assert value == os.getpid()
    assert flights(store) == []


def test_waiting_needs_no_processor_time(cache: Cache, python: Python) -> None:
    process = python(COMPUTES)
    assert line(process) == "computing"
    before = os.times()
    switched = Path("/proc/thread-self/status").read_text()
    assert cache.get_or_set("k", lambda: "ours", wait=1.0) == "ours"
    now = Path("/proc/thread-self/status").read_text()

    def switches(text: str) -> int:
        return int(text.partition("voluntary_ctxt_switches:")[2].split()[0])

    assert switches(now) - switches(switched) < 20  # it slept, and did not look again and again
    assert os.times().user - before.user < 0.5


def test_a_full_table_costs_the_coalescing_only(
    store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def add(self, *arguments: object) -> bool:
            raise celeriac.NotEnoughMemory("full")

        def __getattr__(self, name: str) -> object:
            return getattr(table, name)

    flights = cache._entries.shared.flights
    table = flights._table
    monkeypatch.setattr(flights, "_table", Full())
    assert cache.get_or_set("k", lambda: "value") == "value"
    assert cache.get("k") == "value"
