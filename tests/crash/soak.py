"""The kill soak: processes die at random, and an exact ledger says whether anything was lost.

    python tests/crash/soak.py --seconds 60 --seed 1 --json result.json

Four producers and four consumers of one queue, two writers and a reader of a cache, and two
processes that count in a table, all on one store. One after the other is killed by SIGKILL at a
random moment and started again at once; now and then one is stopped for some 100 ms instead. After
that the consumers drain the queue, and everything is compared with what the processes noted outside
of the store (support/soak_ledger.py): see support/soak_verdict.py for what counts as wrong. Exit
status 1 when anything was.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent / "support"))

import redelivery
import soak_workers
from aftermath import sizes_of_structures
from heap_picture import HeapPicture, leaks, look_at_heap
from soak_verdict import Incarnation, Verdict, judge, judge_counters

import celeriac

SLACK_MS: Final = 500  # how late a wait may end: other processes are stopped for up to STOP_MS
STOP_MS: Final = (40, 160)
STALL: Final = 5.0  # seconds without one acknowledgement that are too long
DRAIN: Final = 30.0
REDELIVERY_P50_MS: Final = 50.0


class Soak:
    """Starts, kills and restarts the processes."""

    def __init__(self, url: str, folder: Path, seed: int, every: float) -> None:
        self.url = url
        self.folder = folder
        self.seed = seed
        self.every = every
        self.draw = random.Random(seed)
        self.processes: dict[int, Incarnation] = {}
        self.running: dict[str, Incarnation] = {}
        self.dying: dict[int, Incarnation] = {}
        self.stopped: list[tuple[float, Incarnation]] = []
        self.stops = 0
        self.oversleep = 0.0
        self.violations: list[str] = []

    def start(self, role: str) -> None:
        """Forks a worker of the role."""
        number = len(self.processes) + 1
        # Until the worker has its handler, a request to end waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid != 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        else:
            os.nice(2)  # the killer comes first
            soak_workers.run(self.url, self.folder, role, number, self.seed)
        process = Incarnation(number, role, pid)
        self.processes[number] = self.running[role] = process

    def kill(self, process: Incarnation) -> None:
        """Kills; bury() looks at what the kernel says, when it has come to it."""
        os.kill(process.pid, signal.SIGKILL)
        self.dying[process.pid] = process

    def bury(self, options: int = os.WNOHANG) -> None:
        """Reaps those that were killed."""
        for process in list(self.dying.values()):
            pid, status = os.waitpid(process.pid, options)
            if not pid:
                continue
            del self.dying[pid]
            process.killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            if not process.killed:
                self.violations.append(f"{process.role} ended by itself: status {status:#x}")

    def stop_one(self) -> None:
        """Stops one that runs; rouse() lets it go on."""
        process = self.draw.choice(list(self.running.values()))
        os.kill(process.pid, signal.SIGSTOP)
        process.stops += 1
        self.stops += 1
        self.stopped.append((time.monotonic() + self.draw.uniform(*STOP_MS) / 1000, process))

    def rouse(self, now: float) -> None:
        """Continues those whose time is over."""
        for until, process in list(self.stopped):
            if now >= until:
                self.stopped.remove((until, process))
                if self.running.get(process.role) is process:
                    os.kill(process.pid, signal.SIGCONT)

    def run(self, seconds: float) -> None:
        """Kills one after the other for that long."""
        for role in soak_workers.ROLES:
            self.start(role)
        begun = last_line = time.monotonic()
        progress, moved = -1, begun
        kills = 0
        while (now := time.monotonic()) < begun + seconds:
            pause = self.draw.expovariate(1 / self.every)
            time.sleep(min(pause, 0.5))
            self.oversleep = max(self.oversleep, time.monotonic() - now - pause)
            self.rouse(time.monotonic())
            self.bury()
            process = self.draw.choice(list(self.running.values()))
            self.kill(process)
            kills += 1
            self.start(process.role)
            if self.draw.random() < 0.02:
                self.stop_one()
            if now - last_line >= 5 or (now - moved > STALL / 2 and now - last_line > 1):
                last_line = now
                noted = self._noted()
                if noted > progress:
                    progress, moved = noted, now
                elif now - moved > STALL:
                    self.violations.append(f"no consumer noted anything for {now - moved:.0f} s")
                    break
                print(
                    f"  {now - begun:4.0f} s: {kills} kills, {self.stops} stops,"
                    f" {noted} consumer records",
                    flush=True,
                )
        self.rouse(float("inf"))
        self.bury(0)

    def _noted(self) -> int:
        paths = self.folder.glob("*.consumer?")
        return sum(path.stat().st_size for path in paths) // 32

    def _end(self, roles: list[str]) -> None:
        for role in roles:
            os.kill(self.running[role].pid, signal.SIGTERM)
        deadline = time.monotonic() + DRAIN
        for role in roles:
            process = self.running.pop(role)
            while True:
                pid, status = os.waitpid(process.pid, os.WNOHANG)
                if pid:
                    break
                if time.monotonic() > deadline:
                    self.violations.append(f"{role} doesn't end")
                    os.kill(process.pid, signal.SIGKILL)
                    os.waitpid(process.pid, 0)
                    process.killed = True
                    break
                time.sleep(0.005)
            if pid and status:
                self.violations.append(f"{role} ended with status {status:#x}")

    def drain(self) -> None:
        """Ends all in good order, the consumers when the queue is empty."""
        consumers = [role for role in self.running if role.startswith("consumer")]
        self._end([role for role in self.running if role not in consumers])
        self._end(consumers)

    def kill_all(self) -> None:
        """Leaves no process behind."""
        for process in self.running.values():
            os.kill(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
        self.bury(0)


def check_store(store: celeriac.Store, verdict: Verdict) -> None:
    """Everything the store itself can say when nobody else uses it."""
    wrong, figures = verdict.violations, verdict.figures
    figures["owners_reaped_at_end"] = store.recover()
    owners = store.owners()
    if len(owners) != 1:
        wrong.append(f"owners left: {[o for o in owners if o['pid'] != os.getpid()]}")
    queue = store.queue(soak_workers.QUEUE)
    counts = queue.counts()
    if any(counts[:4]):
        wrong.append(f"counts after the drain: {counts}")
    least, most = figures["acked"], figures["acked"] + figures["acks_unrecorded"]
    if not least - figures["kills_consumer"] <= counts.done <= most:
        wrong.append(f"done says {counts.done}, the ledger {least} to {most}")
    if queue.purge():
        wrong.append("messages left after the drain")
    judge_counters(verdict, soak_workers.totals(store))
    again = store.queue(soak_workers.QUEUE, max_length=10)
    numbers = [again.put(str(i), priority=i % 3) for i in range(9)]
    got = [again.get(1) for _ in numbers]
    if sorted(m.id for m in got if m) != sorted(numbers):
        wrong.append("the queue doesn't work after the soak")
    for message in got:
        if message is not None:
            message.ack()
    if any(again.counts()[:4]):
        wrong.append(f"counts are off after the soak: {again.counts()}")
    stats = store.stats()
    figures["reaped"] = stats["reaped"]
    if stats["corrupt"]:
        wrong.append(f"{stats['corrupt']} structures found corrupt")


def empty(store: celeriac.Store) -> None:
    """Takes every entry out of cache and table."""
    cache, table = store.cache("soak"), store.table("soak-table")
    for which in range(2 * soak_workers.COUNTERS):
        table.delete(f"c{which}")
    cache.clear()
    while cache.cull(10_000):
        pass
    if len(cache) or len(table):
        raise AssertionError("the cache isn't empty after clear()")


def check_heap(store: celeriac.Store, verdict: Verdict) -> None:
    """No block is left but structures, and the heap's own figures are right."""
    empty(store)
    store.recover()
    picture: HeapPicture = look_at_heap(store.path)
    stats = store.stats()
    wrong, figures = verdict.violations, verdict.figures
    if not picture.whole:
        wrong.append("the walk over the heap doesn't end at its end")
    record, lane = sizes_of_structures()
    lanes = len({*soak_workers.PRIORITIES, 0, 1, 2}) + 1  # and the lane of the other queue
    wrong += [f"leak: {leak}" for leak in leaks(picture, record, lane, lanes, queues=2)]
    if (stats["blocks"], stats["memory_free"]) != (picture.used_blocks, picture.free_bytes):
        wrong.append(f"the heap says {stats}, the walk {picture}")
    figures["blocks_at_end"] = picture.used_blocks
    figures["memory_used_at_end"] = stats["memory_used"]


def percentile(values: list[float], share: float) -> float:
    """The value below which that share lies, in ms."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)


def check_redelivery(url: str, trials: int, verdict: Verdict) -> dict[str, float]:
    """The latency experiment."""
    latencies, wrong = redelivery.measure(url, trials)
    verdict.violations += wrong
    if not latencies:
        verdict.violations.append("nothing was redelivered")
        return {}
    figures = {
        "trials": float(len(latencies)),
        "p50_ms": percentile(latencies, 0.50),
        "p95_ms": percentile(latencies, 0.95),
        "max_ms": percentile(latencies, 1.0),
    }
    if figures["p50_ms"] >= REDELIVERY_P50_MS:
        verdict.violations.append(f"redelivery takes {figures['p50_ms']} ms (p50)")
    return figures


def soak(
    seconds: float, seed: int, every: float, trials: int, kills_at_least: int
) -> dict[str, Any]:
    """The whole run; what it found."""
    folder = Path(tempfile.mkdtemp(prefix="celeriac-soak-"))
    url = f"shm://soak-{os.getpid()}-{seed}?memory=12M"
    with celeriac.connect(url) as store:
        soak_workers.prepare(store)
    run = Soak(url, folder, seed, every)
    kept = False
    try:
        try:
            run.run(seconds)
            run.drain()
        finally:
            run.kill_all()
        verdict = judge(folder, run.processes, SLACK_MS)
        verdict.violations[:0] = run.violations
        verdict.figures["stops"] = run.stops
        verdict.figures["controller_oversleep_ms"] = int(run.oversleep * 1000)
        if verdict.figures["kills"] < kills_at_least:
            verdict.violations.append(f"only {verdict.figures['kills']} kills")
        with celeriac.connect(url) as store:
            check_store(store, verdict)
        latency = check_redelivery(url, trials, verdict) if trials else {}
        with celeriac.connect(url) as store:
            check_heap(store, verdict)
        kept = bool(verdict.violations)
    finally:
        celeriac.connect(url).destroy(force=True)
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    return {
        "seed": seed,
        "seconds": seconds,
        "figures": verdict.figures,
        "redelivery": latency,
        "violations": verdict.violations,
        "ledger": str(folder) if kept else None,
    }


def show(result: dict[str, Any]) -> None:
    """The closing table."""
    for name, value in {**result["figures"], **result["redelivery"]}.items():
        print(f"  {name:26} {value:>12}")
    for violation in result["violations"]:
        print(f"VIOLATION: {violation}")
    if result["ledger"]:
        print(f"the ledger is kept in {result['ledger']}")
    print(f"kill soak, seed {result['seed']}: {'FAILED' if result['violations'] else 'passed'}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and shown")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--every", type=float, default=0.03, help="mean seconds between kills")
    parser.add_argument("--trials", type=int, default=100, help="of the redelivery latency")
    parser.add_argument("--kills", type=int, help="at least so many (default: 500 per minute)")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(10**6)
    at_least = options.kills if options.kills is not None else int(options.seconds * 500 / 60)
    print(f"kill soak: {options.seconds:g} s, seed {seed}", flush=True)
    result = soak(options.seconds, seed, options.every, options.trials, at_least)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if result["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
