"""The Celery application of the Celery soak; workers run it, producers send to it.

Set by the environment: SOAK_URL, the store; SOAK_LEDGER, the ledger's folder; SOAK_ROLE and
SOAK_INCARNATION, who this is.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.worker.request import Request
from celery_soak_ledger import ACKED, ACKING, BEGUN, DONE, REJECTED, Notes

URL = f"celeriac+{os.environ['SOAK_URL']}"

notes = Notes(
    Path(os.environ["SOAK_LEDGER"]), os.environ["SOAK_ROLE"], int(os.environ["SOAK_INCARNATION"])
)

app = Celery("celery_soak_app", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    result_expires=60,
)


class NotingRequest(Request):  # type: ignore[misc]
    """A task in the worker's main process, which notes what becomes of its message.

    Request.acknowledge() isn't it: that only has the hub call ack() in its next turn, and the
    process may be killed before."""

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        super().__init__(message, *args, **options)
        number, ack, reject = self.args[0], message.ack, message.reject

        def noted_ack(*args: Any, **options: Any) -> None:
            notes.note(ACKING, number)
            ack(*args, **options)
            notes.note(ACKED, number)

        def noted_reject(*args: Any, **options: Any) -> None:
            reject(*args, **options)
            notes.note(REJECTED, number)

        message.ack, message.reject = noted_ack, noted_reject


class NotingTask(Task):  # type: ignore[misc]
    Request = NotingRequest


@app.task(base=NotingTask, name="soak.work", shared=False)
def work(number: int, seconds: float, padding: str = "") -> int:
    notes.note(BEGUN, number)
    time.sleep(seconds)
    notes.note(DONE, number)
    return number


#: The same, of which nobody keeps the result.
quiet: Any = app.task(base=NotingTask, name="soak.quiet", ignore_result=True, shared=False)(
    work.run
)
