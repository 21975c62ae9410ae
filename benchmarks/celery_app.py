"""The Celery application that `benchmarks.celery` measures, for each broker the same.

Nothing is tuned: Celery's defaults, JSON, one module with a few tasks. A worker process takes its
broker and backend from the environment, the benchmark makes one application per system.
"""

from __future__ import annotations

import os
import struct
import time
from typing import Any

import celery

from . import celery_fifo

celery_fifo.register()

BROKER, BACKEND = "BENCH_BROKER", "BENCH_BACKEND"
STAMP = struct.Struct("=dd")


def make(broker: str, backend: str | None, amqp: str | None = None) -> Any:
    """An application with its tasks; `amqp` is the publisher's class where it isn't Celery's."""
    app = celery.Celery("bench", broker=broker, backend=backend, amqp=amqp, set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True
    app.conf.worker_hijack_root_logger = False

    def noop(left: int, right: int) -> None:
        """Takes two numbers and does nothing with them."""

    def add(left: int, right: int) -> int:
        """A result that somebody wants."""
        return left + right

    def total(numbers: list[int]) -> int:
        """The callback of a chord."""
        return sum(numbers)

    def stamp(path: str, sent: float) -> None:
        """Note when a task began, beside when it was sent; the clock is the host's."""
        now = time.monotonic()
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, STAMP.pack(sent, now))
        finally:
            os.close(file)

    app.task(name="bench.noop", ignore_result=True, shared=False)(noop)
    app.task(name="bench.add", shared=False)(add)
    app.task(name="bench.total", shared=False)(total)
    app.task(name="bench.stamp", ignore_result=True, shared=False)(stamp)
    app.finalize()
    return app


if BROKER in os.environ:
    app = make(os.environ[BROKER], os.environ.get(BACKEND))
