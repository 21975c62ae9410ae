"""A producer of the Celery soak: sends tasks until it is killed, or told to end by SIGTERM.

Mixed as applications mix them: delay() and apply_async(), with and without a result, at once and
with a countdown, with priorities, small and larger ones, in bursts. It waits while the queue has
more than `ENOUGH` tasks, so that the end of a run needn't work off a heap.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from celery_soak_app import notes, quiet, work
from celery_soak_ledger import FAILED, PER_PRODUCER, SENDING, SENT

import celeriac
from celeriac.errors import LockTimeout

ENOUGH = 300


def send(draw: random.Random, number: int) -> None:
    """One task; what it raises, sending raised."""
    task = draw.choice((work, quiet))
    seconds = draw.choice((0, 0, 0.005, 0.02, 0.05, 0.2))
    padding = "x" * draw.choice((0, 0, 0, 100, 5_000))
    if draw.random() < 0.6:
        task.delay(number, seconds, padding)
        return
    options = {"countdown": draw.uniform(0.01, 2)} if draw.random() < 0.3 else {}
    task.apply_async((number, seconds, padding), priority=draw.choice((0, 3, 9)), **options)


def main() -> None:
    ending = False

    def end(*_: object) -> None:
        nonlocal ending
        ending = True

    signal.signal(signal.SIGTERM, end)
    incarnation = int(os.environ["SOAK_INCARNATION"])
    draw = random.Random(int(sys.argv[1]) * 1_000_003 + incarnation)
    queue = celeriac.connect(os.environ["SOAK_URL"]).queue("celery")
    number = incarnation * PER_PRODUCER
    while not ending:
        counts = queue.counts()
        if counts.ready + counts.delayed > ENOUGH:
            time.sleep(0.05)
            continue
        for _ in range(draw.choice((1, 1, 2, 8))):
            number += 1
            notes.note(SENDING, number)
            try:
                send(draw, number)
            except LockTimeout:  # somebody was stopped in the middle of a write: not sent
                notes.note(FAILED, number)
            else:
                notes.note(SENT, number)
        time.sleep(draw.expovariate(1 / 0.1))


if __name__ == "__main__":
    main()
