"""The demo's processes: started as a user starts his own, and gone when the demo ends.

Each service is the leader of a session and process group of its own, so a Ctrl-C reaches only the
demo, which then stops the groups in order. Three nets hold what falls: `ServiceGroup.stop_all` at
any orderly end, `launch` (the kernel kills a service whose demo died), and `watchdog` (which kills
whole groups and removes directories after a demo that was itself killed).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from . import interrupts
from .errors import DemoError

HERE = Path(__file__).parent
ISOLATED = [sys.executable, "-I", "-S"]
STOP_SECONDS = 6.0
LOG_LINES = 15


class Service:
    """A running process group: the command and all its children."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def group(self) -> int:
        """The process group's id."""
        return self.process.pid

    def processes(self) -> list[int]:
        """The ids of the group's living processes."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._has(pid)]

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `ready()`; `DemoError` with the log's end when it fails or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise DemoError(f"{self.name} wasn't ready in {seconds:.0f} s{self.last_lines()}")
            interrupts.sleep(0.05)

    def check(self) -> None:
        """Raise `DemoError` with the log's end when the process has ended."""
        code = self.process.poll()
        if code is not None:
            raise DemoError(f"{self.name} ended with code {code}{self.last_lines()}")

    def last_lines(self) -> str:
        """The end of the log, for a message."""
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "".join(f"\n  {line}" for line in lines)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the service's first process."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait_gone(self, deadline: float) -> None:
        """Wait until no process of the group is left; at the deadline kill those that are."""
        while self.process.poll() is None or self.processes():
            if time.monotonic() > deadline:
                with suppress(ProcessLookupError):
                    os.killpg(self.group, signal.SIGKILL)
            time.sleep(0.02)

    def _has(self, pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        state, _, group = stat[stat.rindex(")") + 2 :].split(" ", 3)[:3]
        return int(group) == self.group and state not in "ZX"


class ServiceGroup:
    """Starts services and stops them all; a context manager."""

    def __init__(self) -> None:
        self.services: list[Service] = []
        self._watchdog = subprocess.Popen(
            [*ISOLATED, str(HERE / "watchdog.py")], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> ServiceGroup:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop_all()
        assert self._watchdog.stdin
        with suppress(BrokenPipeError):
            self._watchdog.stdin.close()
        self._watchdog.wait()

    def start(
        self,
        name: str,
        command: list[str],
        directory: Path,
        environment: dict[str, str],
        inherit: tuple[int, ...] = (),
        stdout: int | None = None,
    ) -> Service:
        """Start `command` in `directory`; its output goes to `NAME.log` there, or `stdout`."""
        log = directory / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*ISOLATED, str(HERE / "launch.py"), str(os.getpid()), *command],
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file if stdout is None else stdout,
                stderr=file,
                pass_fds=inherit,
                start_new_session=True,
            )
        service = Service(name, process, log)
        self.services.append(service)
        self._tell(f"group {service.group}")
        return service

    def guard(self, path: str) -> None:
        """Have the watchdog remove this directory, should the demo be killed."""
        self._tell(f"path {path}")

    def stop(self, service: Service, seconds: float = STOP_SECONDS) -> None:
        """Ask the service to end, and see that all its processes are gone."""
        service.signal(signal.SIGTERM)
        service.wait_gone(time.monotonic() + seconds)
        self.services.remove(service)
        self._tell(f"forget {service.group}")

    def stop_all(self) -> None:
        """Stop the services that still run, one after the other, the last started first."""
        deadline = time.monotonic() + STOP_SECONDS
        for service in reversed(self.services[:]):
            self.stop(service, max(0.0, deadline - time.monotonic()))

    def _tell(self, line: str) -> None:
        assert self._watchdog.stdin
        with suppress(BrokenPipeError):  # someone killed the watchdog; the other nets remain
            self._watchdog.stdin.write(line.encode() + b"\n")
            self._watchdog.stdin.flush()
