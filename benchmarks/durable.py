"""Durable queues side by side: `python -m benchmarks.durable`, from the root of a clone.

Messages of 256 bytes that producers, each a process, put a second into a queue on a disk, which
is that of the temporary directory (TMPDIR): one call a message, and a hundred at once. Beside Redis
with its append-only file on the same disk, at the same promise: written within a second, or on the
disk before the call returns. For the latter there is a floor, too: what the disk gives to one
process that writes and syncs and does nothing else. See README.md for what is compared and how.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import celeriac

from .common import Options, Report, end_on_sigterm, parse_options, turns
from .crew import Crew, wait_for
from .servers import redis_missing, redis_server

BODY = bytes(256)
MANY = 100
LEVELS = ("everysec", "always")
PRODUCERS = (1, 4, 8)
RECORD = 376
"""Bytes that a message of that size takes in a journal."""
MOST = 100_000
"""Messages that one producer puts at most in one measurement."""

DESCRIPTIONS = {
    "celeriac": "store.queue() on file://: put(); put_many() of a hundred",
    "redis": "redis-py: LPUSH; a pipeline of a hundred LPUSH; hiredis parser, unix socket, "
    "appendonly yes, appendfsync as the promise",
    "floor": "one process that writes a message of each producer with one pwrite(), over zeros "
    "that are on the disk, then calls fdatasync(): nobody who waits for the disk can put more",
}


class System(Protocol):
    """A queue as a producer has it."""

    def one(self) -> None:
        """Put a body."""

    def many(self) -> None:
        """Put a hundred."""

    def empty(self) -> None:
        """Remove them all."""


class Celeriac:
    """`store.queue()`."""

    def __init__(self, place: str) -> None:
        self._queue = celeriac.connect(place).queue("durable")
        self._bodies = [BODY] * MANY

    def one(self) -> None:
        self._queue.put(BODY)

    def many(self) -> None:
        self._queue.put_many(self._bodies)

    def empty(self) -> None:
        self._queue.delete()


class Redis:
    """A list."""

    def __init__(self, place: str) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(place)

    def one(self) -> None:
        self._client.lpush("durable", BODY)

    def many(self) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for _ in range(MANY):
            pipeline.lpush("durable", BODY)
        pipeline.execute()

    def empty(self) -> None:
        self._client.delete("durable")


class Floor:
    """A file that is written over and over."""

    SIZE = 16 << 20

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "floor", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        for offset in range(0, self.SIZE, 1 << 20):
            os.pwrite(self._file, bytes(1 << 20), offset)
        os.fdatasync(self._file)
        self._end = 0

    def rate(self, messages: int, seconds: float) -> float:
        """Messages a second, so many with each sync."""
        data = b"f" * (RECORD * messages)
        done, start = 0, time.monotonic()
        while done == 0 or time.monotonic() < start + seconds:
            if self._end + len(data) > self.SIZE:
                self._end = 0
            os.pwrite(self._file, data, self._end)
            os.fdatasync(self._file)
            self._end += len(data)
            done += messages
        return done / (time.monotonic() - start)

    def close(self) -> None:
        os.close(self._file)


MAKERS: dict[str, Callable[[str], System]] = {"celeriac": Celeriac, "redis": Redis}


def make_worker(places: dict[str, str]) -> Callable[..., Any]:
    """A process of a crew, which puts for a while."""
    opened = {
        (name, level): MAKERS[name](places[f"{name} {level}"])
        for name in MAKERS
        for level in LEVELS
    }

    def work(start: float, name: str, level: str, many: bool, seconds: float) -> int:
        system = opened[name, level]
        put = system.many if many else system.one
        size = MANY if many else 1
        gc.collect()
        wait_for(start)
        done, end = 0, start + seconds
        while done < MOST and (done == 0 or time.monotonic() < end):
            put()
            done += size
        return done

    return work


def measure(
    report: Report, options: Options, crew: Crew, places: dict[str, str], floor: Floor
) -> None:
    """Messages a second, of all producers, from the start until the last one is done."""
    opened = {
        (name, level): MAKERS[name](places[f"{name} {level}"])
        for name in MAKERS
        for level in LEVELS
    }
    for number in range(options.rounds):
        report.round(number, "on the disk")
        for level in LEVELS:
            for many in (False, True):
                for producers in PRODUCERS:
                    how = f"{MANY} at once" if many else "one by one"
                    group, case = f"Puts, {level}", f"{how}, {producers} producers"
                    if not report.wanted(group, case):
                        continue
                    for name in turns(list(report.systems), number):
                        if name == "floor":
                            if level == "always":
                                at_once = producers * (MANY if many else 1)
                                rate = floor.rate(at_once, options.seconds)
                                report.add(group, case, name, rate, "messages/s", "higher")
                            continue
                        job = (name, level, many, options.seconds)
                        answers = crew.tell(*[job] * producers)
                        rate = sum(answers) / (time.monotonic() - crew.start)
                        opened[name, level].empty()
                        report.add(group, case, name, rate, "messages/s", "higher")


@contextmanager
def disk() -> Iterator[Path]:
    """A directory on a disk."""
    with tempfile.TemporaryDirectory(prefix="celeriac-bench-") as folder:
        yield Path(folder)


def main() -> None:
    """Run it."""
    options = parse_options(str(__doc__).splitlines()[0], rounds=5, seconds=0.5)
    missing = redis_missing()
    if missing:
        sys.exit(missing)
    end_on_sigterm()
    with ExitStack() as stack:
        folder = stack.enter_context(disk())
        places: dict[str, str] = {}
        version = ""
        for level in LEVELS:
            url = f"file://{folder / level}?memory=1G&durability={level}"
            store = stack.enter_context(celeriac.connect(url))
            stack.callback(store.destroy, force=True)
            server = stack.enter_context(redis_server(folder / f"redis-{level}", level))
            places[f"celeriac {level}"] = url
            places[f"redis {level}"] = server.socket_url
            version = server.version
        floor = Floor(folder)
        stack.callback(floor.close)
        report = Report("durable", options, DESCRIPTIONS, {"celeriac": ("redis", "floor")})
        report.versions["redis-server"] = version
        report.notes["bodies"] = f"{len(BODY)} bytes"
        with Crew(max(PRODUCERS), make_worker, places) as crew:
            measure(report, options, crew, places, floor)
        report.finish()


if __name__ == "__main__":
    main()
