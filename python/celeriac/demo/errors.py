"""What the demo tells its user instead of a traceback."""

from __future__ import annotations

from celeriac.errors import CeleriacError


class DemoError(CeleriacError):
    """The demo can't run, or a process of it didn't do its part; the message says which and why."""


class Interrupted(Exception):
    """The user or the system asked the demo to stop; `signal` is the signal's number."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"interrupted by signal {signal}")
        self.signal = signal
