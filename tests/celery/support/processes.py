"""Celery's programs as real processes, started and ended by the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def wait_until(condition: Callable[[], Any], seconds: float = 60, what: str = "") -> Any:
    """Wait until a condition is true and return what it gave; fail after a generous time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"never happened: {what or condition}"
        time.sleep(0.05)


class CeleryProcess:
    """One ``celery ...`` command in a session of its own, so that its children end with it."""

    def __init__(self, url: str, directory: Path, name: str, *arguments: str, **env: str) -> None:
        self.log = directory / f"{name}.log"
        self.notes = directory / "notes"
        self.notes.touch()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
            ),
            "PYTHONFAULTHANDLER": "1",
            "CELERIAC_TEST_URL": url,
            "CELERIAC_TEST_NOTES": str(self.notes),
            **env,
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "worker_app", *arguments],
                cwd=directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    def text(self) -> str:
        """Everything that it has printed."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Wait until it has printed something."""

        def printed() -> bool:
            assert self.process.poll() is None or text in self.text(), self.text()
            return text in self.text()

        wait_until(printed, seconds, f"{text!r} in\n{self.log}")

    def noted(self) -> list[str]:
        """Lines that tasks have written."""
        return self.notes.read_text().splitlines()

    def terminate(self, seconds: float = 60) -> int:
        """End it as an operator would, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL to it and to all of its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


def voluntary_switches(pid: int) -> int:
    """How often the threads of a process went to sleep and were woken again."""
    total = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        for line in status.read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total
