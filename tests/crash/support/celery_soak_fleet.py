"""Starts, kills, stops and restarts the processes of the Celery soak."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from celery_soak_ledger import Life, Roster

HERE: Final = Path(__file__).parent
ROLES: Final = [f"{kind}{number}" for kind in ("producer", "worker") for number in range(4)]
CONCURRENCY: Final = 2
STOP: Final = (0.2, 2.0)  # seconds that a process is stopped
ORPHAN: Final = 10.0  # seconds that a pool's child may outlive its main process
#: Celery's last words when a child dies before the worker's loop has begun: it gives up, and has
#: taken no message yet.
GIVES_UP: Final = "WorkerLostError('Could not start worker processes')"


class Process(NamedTuple):
    """A process that can't be taken for a later one of the same number."""

    pid: int
    since: str

    def signal(self, number: signal.Signals) -> bool:
        """Whether it was there to get it."""
        if not self.alive():
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    def alive(self) -> bool:
        return seen(self.pid) == self


def seen(pid: int) -> Process | None:
    """The process of that number, None when it is gone or dead."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] in "ZX" else Process(pid, stat[19])


def children(pid: int) -> list[Process]:
    """The living children of a process."""
    found: list[Process] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += filter(None, (seen(int(child)) for child in path.read_text().split()))
    return found


def of_ledger(folder: Path) -> list[Process]:
    """Every process that was started for this ledger, and lives."""
    mark = f"SOAK_LEDGER={folder}".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in path.read_bytes().split(b"\0"):
                found.append(seen(int(path.parent.name)))
    return [process for process in found if process is not None]


class Fleet:
    """Four producers and four workers, and what befalls them."""

    def __init__(self, url: str, folder: Path, seed: int) -> None:
        self.url = url
        self.folder = folder
        self.seed = seed
        self.draw = random.Random(seed)
        self.roster = Roster(folder)
        self.running: dict[str, tuple[Life, subprocess.Popen[bytes]]] = {}
        self.orphans: list[tuple[float, Process]] = []
        self.stopped: list[tuple[float, Process]] = []
        self.violations: list[str] = []
        self.kills = self.stops = self.stayed = self.gave_up = 0

    def start(self, role: str) -> None:
        """The next incarnation of a role."""
        number = self.roster.next
        if role.startswith("worker"):
            command = ["-m", "celery", "-A", "celery_soak_app", "worker", "--pool", "prefork"]
            command += ["--concurrency", str(CONCURRENCY), "--hostname", f"{role}@soak"]
            command += ["--loglevel", "WARNING"]
        else:
            command = [str(HERE / "celery_soak_producer.py"), str(self.seed)]
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PYTHONFAULTHANDLER": "1",
            "SOAK_URL": self.url,
            "SOAK_LEDGER": str(self.folder),
            "SOAK_ROLE": role,
            "SOAK_INCARNATION": str(number),
        }
        with self.log(number).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running[role] = self.roster.started(role, process.pid), process

    def at_work(self, kind: str = "") -> int:
        """How many of those that run have noted anything yet."""
        started = (life for life, _ in self.running.values() if life.role.startswith(kind))
        return sum(any(self.folder.glob(f"{life.incarnation:06d}.*")) for life in started)

    def log(self, incarnation: int) -> Path:
        """Where an incarnation writes to."""
        return self.folder / f"log.{incarnation:06d}"

    def tail(self, incarnation: int) -> str:
        """The end of that."""
        return self.log(incarnation).read_text(errors="replace")[-2000:]

    def candidates(self) -> list[tuple[Life, Process]]:
        """All that may be killed or stopped: main processes, and children of pools."""
        found = []
        for life, process in self.running.values():
            main = seen(process.pid)
            if main is not None:
                found.append((life, main))
                found += [(life, child) for child in children(main.pid)]
        return found

    def kill_one(self) -> None:
        """Kills a random process; a main process or producer is started again at once."""
        life, victim = self.draw.choice(self.candidates())
        main = victim.pid == life.pid
        family = children(victim.pid) if main else []
        self.roster.killing(life, victim.pid)
        victim.signal(signal.SIGKILL)
        self.roster.killed(life, victim.pid)
        self.kills += 1
        if main:
            self.orphans += [(time.monotonic() + ORPHAN, child) for child in family]
            self.running[life.role][1].wait()
            self.start(life.role)

    def stop_one(self) -> None:
        """Stops a random process; look() lets it go on."""
        life, victim = self.draw.choice(self.candidates())
        if victim.signal(signal.SIGSTOP):
            self.roster.say("stopped", life.incarnation, life.role, victim.pid)
            self.stopped.append((time.monotonic() + self.draw.uniform(*STOP), victim))
            self.stops += 1

    def look(self, now: float) -> None:
        """Continues those whose stop is over, ends orphans that stay, starts what ended itself."""
        for entry in [entry for entry in self.stopped if now >= entry[0]]:
            self.stopped.remove(entry)
            entry[1].signal(signal.SIGCONT)
        for entry in [entry for entry in self.orphans if now >= entry[0]]:
            self.orphans.remove(entry)
            if entry[1].signal(signal.SIGKILL):
                self.stayed += 1
                self.roster.say("orphan", entry[1].pid)
        for role, (life, process) in list(self.running.items()):
            if process.poll() is None:
                continue
            self.roster.say("ended", life.incarnation, role, process.returncode)
            if life.children and GIVES_UP in self.tail(life.incarnation):
                self.gave_up += 1
            else:
                self.violations.append(
                    f"{role}, incarnation {life.incarnation}, ended by itself with status"
                    f" {process.returncode}:\n{self.tail(life.incarnation)}"
                )
            self.start(role)

    def end(self, kind: str, seconds: float) -> None:
        """Ends the producers or the workers in good order."""
        leaving = {role: self.running.pop(role) for role in ROLES if role.startswith(kind)}
        for _, process in leaving.values():
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + seconds
        for role, (life, process) in leaving.items():
            try:
                status = process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.violations.append(f"{role} doesn't end:\n{self.tail(life.incarnation)}")
                continue
            # Whoever is told to end while it starts has no handler yet.
            if status not in (0, -signal.SIGTERM):
                self.violations.append(
                    f"{role} ended with status {status}:\n{self.tail(life.incarnation)}"
                )

    def sweep(self) -> None:
        """Leaves no process behind."""
        while left := of_ledger(self.folder):
            for process in left:
                process.signal(signal.SIGKILL)
            for _, popen in self.running.values():
                popen.poll()
            time.sleep(0.05)
