"""The ledger of the Celery soak: what every process says that it did, outside of the store.

A line is `KIND N SECONDS`, SECONDS of the monotonic clock, which all processes share. Each process
appends to a file of its own, `<incarnation>.<role>.<pid>`, one `os.write` a line, so that a kill
leaves whole lines. An *incarnation* is one life of a producer or of a worker's main process; the
children of a worker's pool belong to that of their main process.

    producers       sending N, then sent N when delay() returned, failed N when it raised
    children        begun N, done N: around the work of task N
    main processes  acking N, acked N, rejected N: around what settles the message
    the killer      its own file, `killer`, see `Roster`
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import NamedTuple

SENDING, SENT, FAILED = "sending", "sent", "failed"
BEGUN, DONE = "begun", "done"
ACKING, ACKED, REJECTED = "acking", "acked", "rejected"

#: Numbers of tasks: the producer's incarnation times this, and a count.
PER_PRODUCER = 1_000_000


class Note(NamedTuple):
    """One line of a file, and whose it is."""

    kind: str
    number: int
    time: float
    incarnation: int
    pid: int


class Notes:
    """Appends lines for whatever process calls it; a forked child gets a file of its own."""

    def __init__(self, folder: Path, role: str, incarnation: int) -> None:
        self._folder = folder
        self._role = role
        self._incarnation = incarnation
        self._pid = -1
        self._fd = -1

    def note(self, kind: str, number: int) -> None:
        """Append a line; it is in the file when this returns."""
        pid = os.getpid()
        if pid != self._pid:
            path = self._folder / f"{self._incarnation:06d}.{self._role}.{pid}"
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._pid = pid
        os.write(self._fd, f"{kind} {number} {time.monotonic():.6f}\n".encode())


def read(folder: Path) -> Iterator[Note]:
    """All lines of all processes, those of one process in their order."""
    for path in sorted(folder.glob("[0-9]*.*.[0-9]*")):
        incarnation, _, pid = path.name.split(".")
        for line in path.read_text().splitlines():
            kind, number, moment = line.split()
            yield Note(kind, int(number), float(moment), int(incarnation), int(pid))


class Kill(NamedTuple):
    """When a signal was sent: not before one moment, not after the other."""

    begun: float
    sent: float = inf


@dataclass
class Life:
    """What the killer knows of one incarnation."""

    incarnation: int
    role: str
    pid: int
    killed: float | None = None
    """When it was killed: the moment before the signal."""
    children: dict[int, Kill] = field(default_factory=dict)
    """Children that were killed, and when."""


class Roster:
    """Who was started and killed; every change is a line of the file `killer`."""

    def __init__(self, folder: Path) -> None:
        self.lives: dict[int, Life] = {}
        self._path = folder / "killer"

    def _line(self, *words: object) -> None:
        with self._path.open("a") as file:
            print(*words, f"{time.monotonic():.6f}", file=file)

    def started(self, role: str, pid: int) -> Life:
        """A process that was started as the next incarnation: see `next`."""
        life = Life(self.next, role, pid)
        self.lives[life.incarnation] = life
        self._line("started", life.incarnation, role, pid)
        return life

    @property
    def next(self) -> int:
        """The number that the next incarnation gets."""
        return len(self.lives) + 1

    def killing(self, life: Life, pid: int) -> None:
        """Says before the signal that it is sent."""
        if pid == life.pid:
            life.killed = time.monotonic()
        else:
            life.children.setdefault(pid, Kill(time.monotonic()))
        self._line("killed", life.incarnation, life.role, pid)

    def killed(self, life: Life, pid: int) -> None:
        """Says after the first signal that it was sent: what a child began until then, it began
        alive."""
        kill = life.children.get(pid)
        if kill is not None and kill.sent == inf:
            life.children[pid] = kill._replace(sent=time.monotonic())

    def say(self, *words: object) -> None:
        """Anything else: stops, ends, orphans."""
        self._line(*words)
