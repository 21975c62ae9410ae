"""Locks side by side: `python -m benchmarks.locks`, from the root of a clone.

One process: microseconds for acquire and release that nobody else wants. Two and four processes
that all want one lock: the time from a release to the other's acquisition, and how evenly they had
their turns. What is behind each name: SYSTEMS.
"""

from __future__ import annotations

import importlib.util
import mmap
import multiprocessing
import os
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import celeriac

from .common import Options, Report, end_on_sigterm, parse_options, percentile, turns
from .crew import Crew, wait_for
from .servers import directory, redis_missing, redis_server, store_url

SYSTEMS = {
    "celeriac": "store.lock() on shm://",
    "threading": "threading.Lock: threads of one process only",
    "multiprocessing": "multiprocessing.Lock: a semaphore that children inherit",
    "filelock": "filelock.FileLock in /dev/shm",
    "redis": "redis-py's Lock with hiredis over a unix socket, as django-redis's cache.lock()",
    "floor": "no lock: a byte that goes round through a FIFO each, to who waits longest",
}
AGAINST = {"celeriac": ["threading", "multiprocessing", "filelock", "redis", "floor"]}
SHAPES = (2, 4)
HANDED = struct.Struct("=dQ")  # when it was released, and by whom
INSIDE = 0.0002  # seconds of work with the lock

Place = tuple[str, str, str]  # URL of the store, of Redis, a directory


def make(name: str, place: Place, shared: Any) -> Any:
    """The lock by its name, as a project would have it."""
    store, redis_url, folder = place
    if name == "celeriac":
        return celeriac.connect(store).lock("bench")
    if name == "threading":
        return threading.Lock()
    if name == "multiprocessing":
        return shared
    if name == "filelock":
        import filelock

        return filelock.FileLock(os.path.join(folder, "bench.lock"))
    import redis

    return redis.Redis.from_url(redis_url).lock("bench", timeout=60)


class Ring:
    """What each hand-over to who came first has to do at least: to wake that process."""

    def __init__(self, folder: str, size: int, index: int) -> None:
        def opened(number: int) -> int:
            return os.open(os.path.join(folder, f"ring-{size}-{number}"), os.O_RDWR)

        self._index, self._mine, self._next = index, opened(index), opened((index + 1) % size)

    def begin(self) -> None:
        """Drop what is left of an earlier round. Before all begin at once."""
        os.set_blocking(self._mine, False)
        with suppress(BlockingIOError):
            os.read(self._mine, 64)
        os.set_blocking(self._mine, True)

    def start(self) -> None:
        """The first one has it first."""
        if self._index == 0:
            os.write(self._mine, b".")

    def end(self) -> None:
        """In case the byte came when it was over: somebody waits for it."""
        os.write(self._next, b".")

    def acquire(self) -> None:
        """Wait for the byte."""
        os.read(self._mine, 1)

    def release(self) -> None:
        """Hand it on."""
        os.write(self._next, b".")


def available() -> dict[str, str]:
    """The systems that are here."""
    there = importlib.util.find_spec("filelock") is not None
    return {name: text for name, text in SYSTEMS.items() if name != "filelock" or there}


def uncontended(lock: Any, seconds: float) -> float:
    """Microseconds of one acquire and release."""
    acquire, release = lock.acquire, lock.release
    calls, end = 0, time.perf_counter() + seconds
    began = time.perf_counter()
    while (now := time.perf_counter()) < end:
        for _ in range(50):
            acquire()
            release()
        calls += 50
    return (now - began) / calls * 1e6


def make_worker(
    place: Place, names: list[str], shared: Any, file: str, size: int
) -> Callable[..., Any]:
    """A process of a crew: wants the lock from a given moment on."""
    locks = {name: make(name, place, shared) for name in names if name != "floor"}
    with Path(file).open("r+b") as opened:
        memory = mmap.mmap(opened.fileno(), HANDED.size)
    me = os.getpid()

    def work(start: float, name: str, seconds: float, index: int) -> tuple[int, list[float]]:
        ring = Ring(place[2], size, index) if name == "floor" else None
        lock, had, taken = ring or locks[name], 0, []
        if ring:
            ring.begin()
        wait_for(start)
        if ring:
            ring.start()
        while time.monotonic() < start + seconds:
            lock.acquire()
            now = time.monotonic()
            when, who = HANDED.unpack_from(memory)
            if who != me and start < when < start + seconds:
                taken.append(now - when)
            had += 1
            while time.monotonic() < now + INSIDE:
                pass
            HANDED.pack_into(memory, 0, time.monotonic(), me)
            lock.release()
        if ring:
            ring.end()
        return had, taken

    return work


def contended(report: Report, options: Options, crew: Crew, size: int, names: list[str]) -> None:
    """Hand-over and turns of so many processes."""
    group = f"{size} processes that want one lock"
    for number in range(options.rounds):
        report.round(number, f"with {size} processes")
        for name in turns(names, number):
            answers = crew.tell(*[(name, options.seconds * size, index) for index in range(size)])
            every = sorted(taken for _, all_taken in answers for taken in all_taken)
            had = [count for count, _ in answers]
            even = max(min(had), 0.5) / max(had, default=1)
            report.add(group, "least turns of most", name, even, "share", "higher")
            for share in (0.5, 0.99):
                value = percentile(every, share) * 1e6 if every else options.seconds * size * 1e6
                report.add(group, f"hand-over, p{share * 100:g}", name, value, "µs")


def main() -> None:
    """Run it."""
    options = parse_options(str(__doc__).splitlines()[0], rounds=5, seconds=0.4)
    missing = redis_missing()
    if missing:
        sys.exit(missing)
    end_on_sigterm()
    with redis_server() as server, store_url("16M") as store, directory() as folder:
        place = (store, server.socket_url, str(folder))
        names = available()
        report = Report("locks", options, names, AGAINST)
        report.versions["redis-server"] = server.version
        report.notes["work with the lock, µs"] = INSIDE * 1e6
        shared = multiprocessing.get_context("spawn").Lock()
        locks = {name: make(name, place, shared) for name in names if name != "floor"}
        for number in range(options.rounds):
            report.round(number, "with one process")
            for name in turns(list(locks), number):
                value = uncontended(locks[name], options.seconds)
                report.add("One process", "acquire and release", name, value, "µs")
        file = folder / "handed"
        file.write_bytes(bytes(mmap.PAGESIZE))
        between = [name for name in names if name != "threading"]  # which is of one process
        for size in SHAPES:
            for number in range(size):
                os.mkfifo(folder / f"ring-{size}-{number}")
            with Crew(size, make_worker, place, between, shared, str(file), size) as crew:
                contended(report, options, crew, size, between)
        report.finish()


if __name__ == "__main__":
    main()
