"""One phase: a stack's backend and shop are started, driven, drained, counted and stopped."""

from __future__ import annotations

import json
import os
import select
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from . import interrupts
from .backends import Backend, backend
from .errors import DemoError
from .ledger import Ledger, TaskCount
from .options import DemoOptions
from .services import Service, ServiceGroup
from .shop import Shop
from .stacks import Stack
from .usage import Memory, cpu_seconds, memory_of

DRAIN_SECONDS = 30.0


class Progress(Protocol):
    """Whom a run tells how far it is. The command line has one for terminals and one for files."""

    def phase(self, title: str) -> None:
        """A new phase has begun."""

    def step(self, text: str) -> None:
        """A new step of the phase has begun."""

    def load(self, share: float, requests_per_second: float) -> None:
        """This `share` of the load's time has passed."""


@dataclass(frozen=True)
class Stand:
    """What the phases of a run share: processes, a scratch directory, database, requests."""

    services: ServiceGroup
    directory: Path
    template: Path
    plan: Path
    options: DemoOptions
    progress: Progress


@dataclass
class PhaseResult:
    """What was counted in one phase.

    `load` and `warm_up` are the driver's tallies. `cpu_seconds` is the processor time of all
    processes but the driver, from the load's start until the queue was drained.
    """

    stack: Stack
    load: dict[str, Any]
    warm_up: dict[str, Any]
    tasks: TaskCount
    memory: Memory
    backend_bytes: int
    processes: int
    cpu_seconds: float
    drain_seconds: float


def run_phase(stand: Stand, stack: Stack) -> PhaseResult:
    """Run one stack. Raises `DemoError` when a process of it doesn't do its part."""
    directory = stand.directory / stack.name
    directory.mkdir()
    stand.progress.step("starting")
    with backend(stack.name, stand.services, directory) as backing:
        try:
            shop = Shop(
                stand.services,
                directory,
                stand.template,
                stack.name,
                backing.settings,
                stand.options,
            )
            return _Phase(stand, stack, backing, shop).run()
        finally:
            stand.services.stop_all()


class _Phase:
    """The steps of a phase between the start of its backend and the end of its processes."""

    def __init__(self, stand: Stand, stack: Stack, backing: Backend, shop: Shop) -> None:
        self._stand = stand
        self._stack = stack
        self._backing = backing
        self._shop = shop
        self._cpu_before_load = 0.0

    def run(self) -> PhaseResult:
        shop = self._shop
        beat = self._start()
        tallies = self._drive()
        pids = shop.processes()
        memory, backend_bytes = memory_of(pids), self._backing.memory()
        cpu = self._cpu() - self._cpu_before_load

        self._stand.progress.step("draining the queue")
        if beat:
            shop.stop(beat)
        load, acknowledged = tallies["load"], tallies["warm_up"]["tasks"] + tallies["load"]["tasks"]
        ledger = Ledger(shop.database)
        cpu_before_drain = self._cpu()
        drain_seconds = self._drain(ledger, acknowledged)
        cpu += self._cpu() - cpu_before_drain
        self._stand.progress.step("stopping")
        return PhaseResult(
            stack=self._stack,
            load=load,
            warm_up=tallies["warm_up"],
            tasks=ledger.count(acknowledged, load["began_at"], load["seconds"]),
            memory=memory,
            backend_bytes=backend_bytes,
            processes=len(pids),
            cpu_seconds=cpu,
            drain_seconds=drain_seconds,
        )

    def _start(self) -> Service | None:
        """Start the shop's processes and wait until they work; return beat where there is one."""
        shop = self._shop
        web = shop.start_web()
        worker = shop.start_worker() if self._stack.queued else None
        shop.wait_for_web(web)
        if worker is None:
            return None
        shop.wait_for_worker(worker)
        return shop.start_beat()

    def _drive(self) -> dict[str, Any]:
        """Run the load driver to its end, pass on its progress, return its tallies."""
        result = self._stand.directory / f"result-{self._stack.name}.json"
        reader, writer = os.pipe()
        try:
            driver = self._shop.drive(self._stand.plan, result, writer)
        finally:
            os.close(writer)
        with os.fdopen(reader, "rb", buffering=0) as output:
            rest = b""
            while True:
                interrupts.check()
                if not select.select([output], [], [], interrupts.STEP)[0]:
                    continue
                data = output.read(4096)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    self._note(line.decode().split())
        driver.wait_until(lambda: driver.process.poll() is not None, 10)
        if driver.process.returncode or not result.exists():
            raise DemoError(f"the load driver failed{driver.last_lines()}")
        self._stand.services.stop(driver)
        tallies: dict[str, Any] = json.loads(result.read_text())
        return tallies

    def _note(self, words: list[str]) -> None:
        """Act on a line of the driver."""
        progress = self._stand.progress
        if words[0] == "load":
            seconds, answered = float(words[1]), int(words[2])
            share = min(1.0, seconds / self._stand.options.seconds)
            progress.load(share, answered / max(seconds, 0.01))
        elif words[0] == "begin":
            self._cpu_before_load = self._cpu()
        else:
            progress.step({"warm": "warming up", "end": "counting"}[words[0]])

    def _drain(self, ledger: Ledger, acknowledged: list[str]) -> float:
        """Wait until every task is done or the deadline has passed; the seconds it took."""
        began = time.monotonic()
        while ledger.undone(acknowledged) and time.monotonic() < began + DRAIN_SECONDS:
            interrupts.sleep(0.2)
        return time.monotonic() - began

    def _cpu(self) -> float:
        server = self._backing.server
        return cpu_seconds(self._shop.processes() + (server.processes() if server else []))
