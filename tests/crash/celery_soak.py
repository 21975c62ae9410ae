"""The Celery soak: producers and workers are killed at random, and an exact ledger is kept.

    python tests/crash/celery_soak.py --seconds 1800 --store file --seed 1

Four producers send tasks to four Celery workers (prefork, two children each, late acknowledgement),
all real processes on one store. Every second a random one of them, main process, child or producer,
is killed by SIGKILL, and producers and workers are started again at once; now and then one is
stopped for up to two seconds. It begins when all eight are at work, and kills pause while workers
take so long to start that none gets to work, so a busy machine makes a run weaker and not wrong.
After that the workers finish what is in the queue.

Claimed, and checked against what the processes noted outside of the store: no task whose delay()
returned is lost; every task that began twice did so because a kill ended the first; at the end
nothing is left in any queue, and none is dead. support/celery_soak_verdict.py has the rules. Exit
status 1 when one is broken.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent / "support"))

from celery_soak_fleet import ROLES, Fleet, of_ledger
from celery_soak_ledger import read
from celery_soak_verdict import Verdict, judge, judge_counts

import celeriac

QUEUE: Final = "celery"
LULL: Final = 10.0  # seconds without one acknowledgement after which nobody is killed
STALL: Final = 120.0  # seconds of that which are too long, then
PATIENCE: Final = 120.0  # for an orderly end
STOPS_EVERY: Final = 4.0
PROGRESS_EVERY: Final = 5.0
#: What workers log of deaths around them: a killed child, and the orphans of a main process.
OF_KILLS: Final = re.compile(
    r"WorkerLostError|exited with 'signal 9|succeeded before the worker"
    r"|Process ForkPoolWorker-\d+$|BrokenPipeError"
)
#: Errors that are ours. The rest is told and judged by nobody, for instance that the pool's new
#: child takes more than four seconds to start.
OURS: Final = re.compile(r"celeriac|Couldn't (ack|reject)|could not be put back|Unrecoverable")


class Progress:
    """Prints a line now and then; knows since when nothing has been acknowledged."""

    def __init__(self, fleet: Fleet, queue: celeriac.Queue) -> None:
        self.fleet = fleet
        self.queue = queue
        self.begun = self.moved = self.last_line = time.monotonic()
        self.done = 0
        self.longest_lull = 0.0

    def look(self, now: float) -> bool:
        """False when the workers have stood still for too long."""
        counts = self.queue.counts()
        if counts.done != self.done:
            self.done, self.moved = counts.done, now
        self.longest_lull = max(self.longest_lull, now - self.moved)
        if now - self.last_line >= PROGRESS_EVERY:
            self.last_line = now
            print(
                f"  {now - self.begun:5.0f} s: {self.fleet.kills} kills, {self.fleet.stops} stops;"
                f" {counts.done} tasks acknowledged, {counts.ready} ready,"
                f" {counts.delayed} delayed, {counts.reserved} reserved;"
                f" {self.fleet.at_work('worker')} of 4 workers at work",
                flush=True,
            )
        if now - self.moved <= STALL:
            return True
        self.fleet.violations.append(
            f"no task was acknowledged for {now - self.moved:.0f} s: {counts}, consumers"
            f" {self.queue.consumers()}"
        )
        return False


def begin(fleet: Fleet, progress: Progress) -> None:
    """Starts all, and waits until each has noted something."""
    for role in ROLES:
        fleet.start(role)
    while fleet.at_work() < len(ROLES):
        time.sleep(0.1)
        fleet.look(time.monotonic())
        if time.monotonic() - progress.begun > PATIENCE:
            fleet.violations.append(f"not all are at work after {PATIENCE:g} s")
            break
    progress.begun = progress.moved = time.monotonic()
    progress.longest_lull = 0.0


def run(fleet: Fleet, progress: Progress, seconds: float, every: float) -> None:
    """Kills one after the other for that long."""
    draw = fleet.draw
    now = time.monotonic()
    end, kill_at = now + seconds, now + every
    stop_at = now + draw.expovariate(1 / STOPS_EVERY)
    while now < end:
        time.sleep(0.02)
        now = time.monotonic()
        fleet.look(now)
        if now - progress.moved > LULL:
            kill_at = max(kill_at, now + every)
        elif now >= kill_at:
            kill_at += every * draw.uniform(0.5, 1.5)
            fleet.kill_one()
        if now >= stop_at:
            stop_at = now + draw.expovariate(1 / STOPS_EVERY)
            fleet.stop_one()
        if not progress.look(now):
            break
    fleet.look(float("inf"))


def drain(fleet: Fleet, progress: Progress) -> None:
    """Ends all in good order, the workers when the queue is empty."""
    fleet.end("producer", PATIENCE)
    progress.moved = time.monotonic()
    while any(progress.queue.counts()[:3]):
        time.sleep(0.05)
        fleet.look(time.monotonic())
        if not progress.look(time.monotonic()):
            break
    fleet.end("worker", PATIENCE)


def check_store(url: str, verdict: Verdict) -> None:
    """What the store says when nobody else uses it; of a file:// store also its journal alone."""
    with celeriac.connect(url) as store:
        verdict.figures["owners_reaped_at_end"] = store.recover()
        if len(store.owners()) != 1:
            verdict.violations.append(f"owners left: {store.owners()}")
        for name in store.queues():
            counts = store.queue(name).counts()
            judge_counts(verdict, name, counts[:4], counts.done if name == QUEUE else None)
            verdict.figures["queues_at_end"] = verdict.figures.get("queues_at_end", 0) + 1
        stats = store.stats()
        if stats["corrupt"]:
            verdict.violations.append(f"{stats['corrupt']} structures found corrupt")
        arena = Path(store.path) / "arena"
    if url.startswith("file:"):
        arena.unlink()
        with celeriac.connect(url) as store:
            for name in store.queues():
                judge_counts(
                    verdict, f"{name} of the journal", store.queue(name).counts()[:4], None
                )


def check_logs(fleet: Fleet, verdict: Verdict) -> list[str]:
    """Errors that workers and producers logged, but for what deaths make them say; ours are wrong,
    all are returned."""
    found: Counter[str] = Counter()
    for life in fleet.roster.lives.values():
        for line in fleet.log(life.incarnation).read_text(errors="replace").splitlines():
            if re.search(r"ERROR|CRITICAL|^\w+(\.\w+)*Error\b", line) and not OF_KILLS.search(line):
                found[re.sub(r"^\[.*?\] ?", "", line)] += 1
    lines = [f"{n} x {line}" for line, n in found.most_common()]
    verdict.figures["errors_logged"] = found.total()
    verdict.wrong("error logged", [line for line in lines if OURS.search(line)])
    return lines


def soak(kind: str, seconds: float, seed: int, every: float, keep: bool = False) -> dict[str, Any]:
    """The whole run; what it found."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-celery-soak-"))
    place = f"file://{folder}/store" if kind == "file" else f"shm://{folder.name}"
    url = f"{place}?memory=256M"
    fleet = Fleet(url, folder, seed)
    kept = True
    try:
        try:
            with celeriac.connect(url) as store:
                progress = Progress(fleet, store.queue(QUEUE))
                begin(fleet, progress)
                run(fleet, progress, seconds, every)
                drain(fleet, progress)
        finally:
            left = len(of_ledger(folder))
            fleet.sweep()
        verdict = judge(read(folder), fleet.roster.lives)
        verdict.violations[:0] = fleet.violations
        verdict.figures |= {
            "kills": fleet.kills,
            "stops": fleet.stops,
            "longest_lull_ms": int(progress.longest_lull * 1000),
            "workers_that_gave_up": fleet.gave_up,
            "orphans_that_stayed": fleet.stayed,
            "processes_left_at_end": left,
        }
        check_store(url, verdict)
        logged = check_logs(fleet, verdict)
        if not fleet.kills or not verdict.figures["acked"]:
            verdict.violations.append("too little happened for a verdict")
        kept = keep or bool(verdict.violations)
    finally:
        if not kept or kind == "shm":  # a store in a file is evidence
            celeriac.connect(url).destroy(force=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "store": kind,
        "seed": seed,
        "seconds": seconds,
        "figures": verdict.figures,
        "violations": verdict.violations,
        "logged": logged,
        "ledger": str(folder) if kept else None,
    }


def show(result: dict[str, Any]) -> None:
    """The closing table."""
    for name, value in result["figures"].items():
        print(f"  {name:22} {value:>10}")
    for line in result["logged"][:10]:
        print(f"  logged {line}")
    for violation in result["violations"]:
        print(f"VIOLATION: {violation}")
    if result["ledger"]:
        print(f"ledger and logs are kept in {result['ledger']}")
    state = "FAILED" if result["violations"] else "passed"
    print(f"Celery soak on {result['store']}://, seed {result['seed']}: {state}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--store", choices=("shm", "file"), default="shm")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and shown")
    parser.add_argument("--every", type=float, default=1.0, help="mean seconds between kills")
    parser.add_argument("--keep", action="store_true", help="keep ledger and logs in any case")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    # Whoever ends the soak has its processes ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    print(f"Celery soak on {options.store}://: {options.seconds:g} s, seed {seed}", flush=True)
    result = soak(options.store, options.seconds, seed, options.every, options.keep)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
