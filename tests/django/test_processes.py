"""One cache for all processes of the host: separate ones, and children of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

from celeriac.django.cache import CeleriacCache

Make = Callable[..., CeleriacCache]

OTHER_PROCESS = """
import sys
from celeriac.django.cache import CeleriacCache
cache = CeleriacCache(sys.argv[1], {"KEY_PREFIX": "site"})
"""


def run_elsewhere(location: str, code: str) -> str:
    """Run `code` in another process, where `cache` is a backend at `location`."""
    command = [sys.executable, "-c", OTHER_PROCESS + code, location]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def in_child(call: Callable[[], object]) -> int:
    """Fork, run `call` in the child, and return the child's pid. The child's exit says all."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            call()
            status = 0
        finally:
            os._exit(status)
    return pid


def succeeded(pid: int) -> bool:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_two_processes_see_one_cache(backend: Make, location: str) -> None:
    cache = backend(KEY_PREFIX="site")
    cache.set("here", ["a", "list"])
    seen = run_elsewhere(
        location, "print(cache.get('here')); cache.set('there', {'n': 1}); cache.set('counter', 5)"
    )
    assert seen == "['a', 'list']"
    assert cache.get("there") == {"n": 1}
    assert cache.incr("counter") == 6
    assert run_elsewhere(location, "print(cache.get('counter')); cache.clear()") == "6"
    assert cache.get("here") is None


def test_a_cache_goes_on_in_the_children_of_a_fork(backend: Make) -> None:
    cache = backend()
    cache.set("key", "parent's")

    def child() -> None:
        assert cache.get("key") == "parent's"
        cache.set("child", "child's")
        assert backend(VERSION=1).get("child") == "child's"

    assert succeeded(in_child(child))
    assert cache.get("child") == "child's"
    cache.set("key", "after the fork")
    assert cache.get("key") == "after the fork"


def test_processes_and_threads_lose_no_increment(backend: Make) -> None:
    cache = backend()
    cache.set("counter", 0, None)

    def count() -> None:
        for _ in range(1_000):
            cache.incr("counter")

    def count_in_threads() -> None:
        threads = [threading.Thread(target=count) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    children = [in_child(count_in_threads) for _ in range(3)]
    count()
    assert [succeeded(child) for child in children] == [True, True, True]
    assert cache.get("counter") == 7_000


def test_one_process_adds_a_key(backend: Make) -> None:
    cache = backend()
    read, write = os.pipe()

    def race() -> None:
        for number in range(200):
            if cache.add(f"round-{number}", os.getpid()):
                os.write(write, b"x")

    children = [in_child(race) for _ in range(3)]
    race()
    assert [succeeded(child) for child in children] == [True, True, True]
    assert len(os.read(read, 4_096)) == 200
    os.close(read)
    os.close(write)
