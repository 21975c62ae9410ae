"""Queues side by side: `python -m benchmarks.queue`, from the root of a clone.

256-byte bodies from Python: microseconds for one put and for one get with its ack, in one process;
then as many producers as consumers, each a process, and the messages that get through a second.
See README.md for what is compared and how.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from . import queue_systems as systems
from .common import Options, Report, end_on_sigterm, parse_options, turns
from .crew import Crew, wait_for
from .servers import directory, redis_missing, redis_server, store_url

SHAPES = (1, 2, 4)
CHUNK = 50
LINGER = 0.3
"""Seconds without a message after which a consumer takes it that there are no more."""
MOST = 200_000
"""Messages that one producer puts at most in one measurement: they have to fit into memory."""


def make_worker(place: systems.Place) -> Callable[..., Any]:
    """A process of a crew: a producer or a consumer, as the job says."""
    opened = {name: systems.MAKERS[name](place, "through") for name in systems.available()}

    def work(start: float, role: str, name: str, seconds: float) -> tuple[int, float]:
        system = opened[name]
        gc.collect()
        wait_for(start)
        if role == "producer":
            return _produce(system, seconds), time.monotonic()
        return _consume(system, start + seconds)

    return work


def bodies() -> Callable[[], bytes]:
    """Makes bodies that differ, so that LREM finds its own."""
    number = 0
    filler = bytes(systems.BODY - 8)

    def make() -> bytes:
        nonlocal number
        number += 1
        return number.to_bytes(8, "big") + filler

    return make


def _produce(system: systems.System, seconds: float) -> int:
    body = bodies()
    put = 0
    end = time.monotonic() + seconds
    while put < MOST and (put == 0 or time.monotonic() < end):
        for _ in range(CHUNK):
            system.put(body())
        put += CHUNK
    return put


def _consume(system: systems.System, end: float) -> tuple[int, float]:
    taken, last = 0, 0.0
    while True:
        if system.take(LINGER):
            taken += 1
            last = time.monotonic()
        elif time.monotonic() > end:
            return taken, last


def one_process(report: Report, options: Options, place: systems.Place) -> None:
    """Microseconds for a put, and for a get with its ack, with a queue that isn't empty."""
    group = "One process"
    opened = {name: systems.MAKERS[name](place, "alone") for name in report.systems}
    body = bodies()
    for number in range(options.rounds):
        report.round(number, "with one process")
        if not report.wanted(group, ""):
            continue
        for name in turns(list(opened), number):
            system = opened[name]
            gc.collect()
            puts = _puts(system, body, options.seconds)
            takes = _takes(system, len(puts))
            report.add(group, "put", name, statistics.median(puts) * 1e6, "µs a message")
            report.add(group, "get and ack", name, statistics.median(takes) * 1e6, "µs a message")


def _puts(system: systems.System, body: Callable[[], bytes], seconds: float) -> list[float]:
    """Seconds a message, for chunks of them, until the time is over."""
    taken: list[float] = []
    start = before = time.perf_counter()
    while before - start < seconds and len(taken) * CHUNK < MOST:
        for _ in range(CHUNK):
            system.put(body())
        now = time.perf_counter()
        taken.append((now - before) / CHUNK)
        before = now
    return taken


def _takes(system: systems.System, chunks: int) -> list[float]:
    """Seconds a message, for that many chunks."""
    taken: list[float] = []
    before = time.perf_counter()
    for _ in range(chunks):
        for _ in range(CHUNK):
            if not system.take(1.0):
                raise AssertionError(f"{type(system).__name__}: a message is missing")
        now = time.perf_counter()
        taken.append((now - before) / CHUNK)
        before = now
    return taken


def through(report: Report, options: Options, crew: Crew) -> None:
    """Messages a second from the start to the last ack, with all processes at once."""
    group = "Producers × consumers at once"
    for number in range(options.rounds):
        report.round(number, "with several processes")
        for size in SHAPES:
            if not report.wanted(group, f"{size} × {size}"):
                continue
            for name in turns(list(report.systems), number):
                jobs = [(role, name, options.seconds) for role in ("producer", "consumer")]
                answers = crew.tell(*[job for job in jobs for _ in range(size)])
                put = sum(count for count, _ in answers[:size])
                taken = sum(count for count, _ in answers[size:])
                if put != taken:
                    raise AssertionError(f"{name}, {size} × {size}: {put} put, {taken} taken")
                last = max(moment for _, moment in answers[size:])
                rate = taken / (last - crew.start)
                report.add(group, f"{size} × {size}", name, rate, "messages/s", "higher")


def main() -> None:
    """Run it."""
    options = parse_options(str(__doc__).splitlines()[0], rounds=5, seconds=0.5)
    missing = redis_missing()
    if missing:
        sys.exit(missing)
    end_on_sigterm()
    with redis_server() as server, store_url("1G") as store, directory() as folder:
        place = systems.Place(store, server.socket_url, str(folder))
        report = Report("queue", options, systems.available(), systems.AGAINST)
        report.versions["redis-server"] = server.version
        report.notes["bodies"] = f"{systems.BODY} bytes"
        one_process(report, options, place)
        with Crew(2 * max(SHAPES), make_worker, place) as crew:
            through(report, options, crew)
        report.finish()


if __name__ == "__main__":
    main()
