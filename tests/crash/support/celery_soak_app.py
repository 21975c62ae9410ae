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
    """A task in the worker's main process, which notes what becomes of its message."""

    def acknowledge(self) -> None:
        if self.acknowledged:
            return
        notes.note(ACKING, self.args[0])
        super().acknowledge()
        notes.note(ACKED, self.args[0])

    def reject(self, requeue: bool = False) -> None:
        if self.acknowledged:
            return
        super().reject(requeue)
        notes.note(REJECTED, self.args[0])


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
