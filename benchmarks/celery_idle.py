"""What an idle Celery worker takes: memory for tasks that wait for their ETA, and wake-ups."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from .celery_workers import Stamps, System, worker
from .common import Options, Report, turns

MEMORY = "Tasks with an ETA in an hour: memory of the worker that would run them"
WAKE_UPS = "Idle worker: wake-ups a second"

TASKS = 10_000
LEAST = 0.01
"""What is less is shown as this, so that there are ratios."""


def waiting_tasks(
    report: Report, options: Options, every: list[System], folder: Path, number: int
) -> None:
    """Megabytes by which a worker grows while 10,000 tasks for later are sent."""
    count = 100 if options.quick else TASKS
    case = f"{count:,} tasks"
    if not report.wanted(MEMORY, case):
        return
    for system in turns(every, number):
        system.empty()
        with worker(system, folder) as process:
            _ready(system, folder, process)
            before = anonymous(process.pid)
            task = system.task("noop")
            for index in range(count):
                task.apply_async((index, 2), countdown=3600)
            _settled(lambda pid=process.pid: anonymous(pid))  # type: ignore[misc]
            grown = (anonymous(process.pid) - before) / 2**20
        system.empty()
        report.add(MEMORY, case, system.name, max(grown, LEAST), "MB")


def wake_ups(
    report: Report, options: Options, every: list[System], folder: Path, number: int
) -> None:
    """How often a second threads of a worker that has nothing to do go to sleep and are woken."""
    seconds = 1.0 if options.quick else 10.0
    for case, pool, concurrency in (("solo", "solo", 1), ("prefork 2", "prefork", 2)):
        if not report.wanted(WAKE_UPS, case):
            continue
        for system in turns(every, number):
            system.empty()
            with worker(system, folder, pool=pool, concurrency=concurrency) as process:
                _ready(system, folder, process)
                _settled(lambda pid=process.pid: anonymous(pid))  # type: ignore[misc]
                before, begun = switches(process.pid), time.monotonic()
                time.sleep(seconds)
                woken = switches(process.pid) - before
                rate = woken / (time.monotonic() - begun)
            report.add(WAKE_UPS, case, system.name, max(rate, LEAST), "a second")


def _ready(system: System, folder: Path, process: object) -> None:
    stamps = Stamps(folder / f"idle-{system.name}")
    system.task("stamp").delay(str(stamps.path), time.monotonic())
    stamps.wait(1, process)  # type: ignore[arg-type]


def _settled(value: Callable[[], int], seconds: float = 60.0) -> None:
    """Until a value has stayed the same for a second."""
    end = time.monotonic() + seconds
    last, since = value(), time.monotonic()
    while time.monotonic() < end and time.monotonic() - since < 1.0:
        time.sleep(0.1)
        now = value()
        if now != last:
            last, since = now, time.monotonic()


def anonymous(pid: int) -> int:
    """Bytes of memory that are the process's alone: no libraries, and nothing of a shared store."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel doesn't tell RssAnon")


def switches(pid: int) -> int:
    """How often the threads of a process have gone to sleep of themselves."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches:"):
                total += int(line.split()[1])
    return total
