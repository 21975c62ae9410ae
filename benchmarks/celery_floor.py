"""What Celery itself takes: publisher and worker in one process.

Run by `benchmarks.celery` as a process of its own, `python -m benchmarks.celery_floor KIND COUNT
FILE POOL CONCURRENCY`: publishes COUNT no-ops with a stamp before and after them, then works them
off. KIND is `memory`, kombu's memory transport, or `floor`, a deque. POOL is `solo` or `prefork`,
whose children get their tasks from this process. No other process can reach either broker and
nothing is copied to one, so that these are floors to compare with and not brokers to use.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from . import celery_app, celery_deque
from .celery_workers import Stamps


def main() -> None:
    """Publish, work, end."""
    kind, count, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    pool, concurrency = sys.argv[4], int(sys.argv[5])
    loop = pool != "solo"
    app = celery_app.make(celery_deque.register(loop) if kind == "floor" else "memory://", None)
    stamps = Stamps(path)
    noop, stamp = app.tasks["bench.noop"], app.tasks["bench.stamp"]
    stamp.delay(str(path), time.monotonic())
    for number in range(count):
        noop.delay(number, 2)
    stamp.delay(str(path), time.monotonic())

    def end_when_done() -> None:
        stamps.wait(2)
        os._exit(0)

    threading.Thread(target=end_when_done, daemon=True).start()
    app.Worker(
        pool=pool,
        concurrency=concurrency,
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    ).start()
    sys.exit("the worker ended by itself")


if __name__ == "__main__":
    main()
