"""What the user of the demo may choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

PRODUCTS = 2_000
ORDERS = 50_000
CUSTOMERS = 20
PAGE_SIZE = 100
REPORT_DAYS = (7, 30, 90)
THREADS = 2
TASK_PROCESSES = 2


@dataclass(frozen=True)
class DemoOptions:
    """One run of the demo.

    `seconds` is the load of each phase; `workers` gunicorn's processes; `trace` a file of page
    accesses or None for a Zipf draw; `stacks` the names of the stacks to run, in order.
    """

    seconds: float = 12.0
    workers: int = 4
    seed: int = 1
    trace: Path | None = None
    stacks: tuple[str, ...] = field(default=("locmem", "celeriac", "redis"))

    @property
    def connections(self) -> int:
        """How many requests are under way at once: one for each thread of the web workers."""
        return self.workers * THREADS
