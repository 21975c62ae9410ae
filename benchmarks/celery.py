"""Celery on celeriac and on Redis: `python -m benchmarks.celery`, from the root of a clone.

Publishing, working off a full queue, the time from `delay()` to the start of the task, that from
`delay()` to its result, and that of a chord; what a worker takes that waits. See README.md for what
is compared and how.
"""

from __future__ import annotations

import gc
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from celery import chord

from . import celery_app, celery_deque, celery_fifo
from .celery_idle import waiting_tasks, wake_ups
from .celery_workers import Stamps, System, environment, worker
from .common import (
    ROOT,
    Options,
    Report,
    end_on_sigterm,
    parse_options,
    percentile,
    turns,
)
from .servers import directory, redis_missing, redis_server, store_url

CHUNK = 20
MOST_CHUNKS = 1000
DRAIN = 3000
SHAPES = (
    ("solo, no results", "noop", "solo", 1),
    ("solo, results kept", "add", "solo", 1),
    ("prefork 2, no results", "noop", "prefork", 2),
)
"""Of working off: the case, the task, the pool and its size."""
SAMPLES = 200
PARTS = 100
CHORDS = 5
PAUSE = 0.008
"""Seconds between two tasks to an idle worker, and up to half as much again, by chance."""
MEMORY = "256M"

DESCRIPTIONS = {
    "celeriac": "broker and result backend celeriac+shm://",
    "celeriac amqp": 'the same, published through Celery(amqp="celeriac.celery:AMQP")',
    "redis": "broker and result backend redis:// on loopback, hiredis parser, no persistence",
    "memory": "kombu's memory transport, all in one process: what Celery itself takes, not a "
    "broker between processes",
    "floor": "a transport that costs nothing, objects in a deque: the least that Celery takes; "
    "between processes pickles in a FIFO, the results in another",
}
AGAINST = {"celeriac": ("redis", "memory", "floor"), "celeriac amqp": ("redis", "memory", "floor")}
PUBLISH, DRAINS = "Publishing", "Working off a full queue"
CHORD = "A chord, idle worker"
LATENCY, RESULT = "From delay() to the task's start, idle worker", "delay().get(), idle worker"


@contextmanager
def systems(report: Report) -> Iterator[list[System]]:
    """The brokers that other processes can reach."""
    with ExitStack() as stack:
        server = stack.enter_context(redis_server())
        store = stack.enter_context(store_url(MEMORY))
        report.versions["redis-server"] = server.version
        urls = {"celeriac": f"celeriac+{store}", "redis": server.url}
        made = [System(name, url, url, celery_app.make(url, url)) for name, url in urls.items()]
        for system in made:
            stack.callback(system.app.close)
        yield made


@contextmanager
def publishers(every: list[System]) -> Iterator[list[System]]:
    """Others to publish with: celeriac's own publisher, and the two floors, without results."""
    ours = every[0]
    fast = celery_app.make(ours.broker, ours.backend, "celeriac.celery:AMQP")
    made = [System("celeriac amqp", ours.broker, ours.backend, fast)]
    for name, url in (("memory", "memory://"), ("floor", celery_deque.register())):
        made.append(System(name, url, "", celery_app.make(url, None)))
    try:
        yield made
    finally:
        for system in made:
            system.app.close()


def publish(
    report: Report, options: Options, every: list[System], others: list[System], number: int
) -> None:
    """Microseconds for `task.delay(1, 2)`; nobody consumes, and the queue is emptied after it."""
    for case, name, taking_part in (
        ("no result wanted", "noop", [*every, *others]),
        ("result wanted", "add", [*every, *(other for other in others if other.backend)]),
    ):
        if not report.wanted(PUBLISH, case):
            continue
        for system in turns(taking_part, number):
            delay = system.task(name).delay
            for _ in range(CHUNK):
                delay(1, 2)
            gc.collect()
            taken: list[float] = []
            start = before = time.perf_counter()
            while before - start < options.seconds and len(taken) < MOST_CHUNKS:
                for _ in range(CHUNK):
                    delay(1, 2)
                now = time.perf_counter()
                taken.append((now - before) / CHUNK)
                before = now
            sent = CHUNK * (len(taken) + 1)
            if system.waiting() != sent:
                raise AssertionError(f"{system.name}: {sent} sent, {system.waiting()} wait")
            system.empty()
            report.add(PUBLISH, case, system.name, statistics.median(taken) * 1e6, "µs a task")


def drain(report: Report, options: Options, every: list[System], folder: Path, number: int) -> None:
    """Tasks a second, between a stamp before 3,000 of them and one after.

    The queue is full before the worker starts, so that starting isn't counted.
    """
    count = 100 if options.quick else DRAIN
    for case, name, pool, concurrency in SHAPES:
        if not report.wanted(DRAINS, case):
            continue
        for system in turns(every, number):
            stamps = Stamps(folder / "drain")
            fill(system, name, stamps, count)
            with worker(system, folder, pool=pool, concurrency=concurrency) as process:
                stamps.wait(2, process)
            if system.waiting():
                raise AssertionError(f"{system.name}: {system.waiting()} tasks are left")
            (_, first), (_, last) = stamps.read()
            report.add(DRAINS, case, system.name, count / (last - first), "tasks/s", "higher")


def fill(system: System, name: str, stamps: Stamps, count: int) -> None:
    """A stamp, the tasks, a stamp."""
    system.empty()
    path, task = str(stamps.path), system.task(name)
    system.task("stamp").delay(path, time.monotonic())
    for index in range(count):
        # The publisher doesn't wait for these results; the worker keeps them all the same.
        task.apply_async((index, 2))
    system.task("stamp").delay(path, time.monotonic())


def drain_floor(report: Report, options: Options, folder: Path) -> None:
    """Working off on the two floors, each in a process that is publisher and worker.

    kombu's memory transport knows no event loop, so it can't take part in a prefork worker's.
    """
    count = 100 if options.quick else DRAIN
    for case, task, pool, concurrency in SHAPES:
        if task != "noop" or not report.wanted(DRAINS, case):
            continue
        for name in ("memory", "floor") if pool == "solo" else ("floor",):
            stamps = Stamps(folder / f"drain-{name}")
            arguments = [name, str(count), str(stamps.path), pool, str(concurrency)]
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.celery_floor", *arguments],
                cwd=ROOT,
                env=environment("memory://", None),
                capture_output=True,
                text=True,
                timeout=180,
                start_new_session=True,  # as the other workers: the kernel shares by session
            )
            if done.returncode:
                raise RuntimeError(f"the process of {name} failed:\n{done.stderr[-2000:]}")
            (_, first), (_, last) = stamps.read()
            report.add(DRAINS, case, name, count / (last - first), "tasks/s", "higher")


def answers(report: Report, options: Options, every: list[System], folder: Path) -> None:
    """Milliseconds to the start of a task, to its result, and to that of a chord. One at a time."""
    count = 10 if options.quick else SAMPLES
    groups = [group for group in (LATENCY, RESULT) if report.wanted(group, "")]
    chords = report.wanted(CHORD, f"of {PARTS}")
    if not groups and not chords:
        return
    with ExitStack() as stack:
        floor = stack.enter_context(answering_floor(folder))
        for system in (*every, floor):
            system.empty()
            process = stack.enter_context(worker(system, folder))
            ready = Stamps(folder / f"ready-{system.name}")
            system.task("stamp").delay(str(ready.path), 0.0)
            ready.wait(1, process)
        for number in range(options.rounds):
            report.round(number, "with idle workers")
            for group in groups:
                for system in turns([*every, floor], number):
                    measure = to_start if group == LATENCY else to_result
                    taken = sorted(measure(system, folder, count))
                    for share in (0.5, 0.95, 0.99):
                        value = percentile(taken, share) * 1000
                        report.add(group, f"p{share * 100:g}", system.name, value, "ms")
            for system in turns(every, number) if chords else ():
                taken = [a_chord(system) for _ in range(1 if options.quick else CHORDS)]
                value = statistics.median(taken) * 1000
                report.add(CHORD, f"of {PARTS}", system.name, value, "ms")


@contextmanager
def answering_floor(folder: Path) -> Iterator[System]:
    """The floor of one task at a time to another process."""
    broker, backend = celery_fifo.make(folder / "floor")
    app = celery_app.make(broker, backend)
    try:
        yield System("floor", broker, backend, app)
    finally:
        app.close()


def to_start(system: System, folder: Path, count: int) -> list[float]:
    """Seconds from before `delay()` in this process to the first line of the task in another."""
    stamps = Stamps(folder / f"latency-{system.name}")
    path, delay = str(stamps.path), system.task("stamp").delay
    gc.collect()
    for _ in range(count):
        time.sleep(PAUSE * (1 + random.random() / 2))
        delay(path, time.monotonic())
    stamps.wait(count)
    return [begun - sent for sent, begun in stamps.read()]


def to_result(system: System, folder: Path, count: int) -> list[float]:
    """Seconds from before `delay()` to after `get()`."""
    task = system.task("add")
    gc.collect()
    taken = []
    for index in range(count):
        time.sleep(PAUSE / 4)
        start = time.perf_counter()
        if task.delay(index, 2).get(timeout=30) != index + 2:
            raise AssertionError(f"{system.name}: wrong sum")
        taken.append(time.perf_counter() - start)
    return taken


def a_chord(system: System) -> float:
    """Seconds from before a chord is sent to after its callback's result is there."""
    add, total = system.task("add"), system.task("total")
    gc.collect()
    start = time.perf_counter()
    result = chord([add.s(index, 2) for index in range(PARTS)], app=system.app)(total.s())
    if result.get(timeout=60) != sum(range(PARTS)) + 2 * PARTS:
        raise AssertionError(f"{system.name}: wrong sum")
    return time.perf_counter() - start


def main() -> None:
    """Run it."""
    options = parse_options(str(__doc__).splitlines()[0], rounds=5, seconds=0.5)
    missing = redis_missing()
    if missing:
        sys.exit(missing)
    end_on_sigterm()
    report = Report("celery", options, DESCRIPTIONS, AGAINST)
    report.notes["working off"] = f"{100 if options.quick else DRAIN:,} tasks in the queue"
    report.notes["idle worker"] = (
        f"solo pool, one task at a time, {10 if options.quick else SAMPLES} a round; the "
        "percentiles are those of a round"
    )
    with directory() as folder, systems(report) as every, publishers(every) as others:
        for number in range(options.rounds):
            report.round(number, "publishing and working off")
            publish(report, options, every, others, number)
            drain(report, options, every, folder, number)
            drain_floor(report, options, folder)
            waiting_tasks(report, options, every, folder, number)
            wake_ups(report, options, every, folder, number)
        answers(report, options, every, folder)
        report.finish()


if __name__ == "__main__":
    main()
