"""What Celery itself takes: its memory transport, publisher and solo worker in one process.

Run by `benchmarks.celery` as a process of its own, `python -m benchmarks.celery_floor COUNT FILE`:
publishes COUNT no-ops with a stamp before and after them, then works them off. No other process
can reach this broker and nothing is copied to one, so that this is a floor to compare with and not
a broker to use.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from . import celery_app
from .celery_workers import Stamps


def main() -> None:
    """Publish, work, end."""
    count, path = int(sys.argv[1]), Path(sys.argv[2])
    app = celery_app.make("memory://", None)
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
        pool="solo",
        loglevel="WARNING",
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    ).start()
    sys.exit("the worker ended by itself")


if __name__ == "__main__":
    main()
