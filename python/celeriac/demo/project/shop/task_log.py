"""Who sent which task when, and what became of it: the rows by which the demo counts.

`Attempt` writes one `TaskRun` for each attempt. Two signals add the sender's side: each task
carries the time at which it was sent, and beat, whose tasks no request acknowledges, notes their
ids.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Task
from celery.signals import after_task_publish, beat_init, before_task_publish

from .models import ScheduledTask, TaskRun

SENT = "demo_sent"


class Attempt:
    """One attempt of a task, from its start."""

    def __init__(self, task: Task, kind: str) -> None:
        self._started = time.time()
        self._task = task
        self._kind = kind

    @property
    def number(self) -> int:
        """0 for the first attempt."""
        return int(self._task.request.retries)

    def done(self) -> None:
        """The work is done; call it in the transaction of the work."""
        self._write(TaskRun.DONE)

    def failed(self) -> None:
        """The attempt failed, and Celery will try again."""
        self._write(TaskRun.RETRY)

    def _write(self, outcome: str) -> None:
        request = self._task.request
        TaskRun.objects.create(
            task_id=request.id,
            kind=self._kind,
            attempt=self.number,
            outcome=outcome,
            sent=(request.headers or {}).get(SENT),
            started=self._started,
            finished=time.time(),
        )


@before_task_publish.connect
def stamp(headers: dict[str, Any], **_: Any) -> None:
    """Let the task carry the time at which it is sent."""
    headers[SENT] = time.time()


@beat_init.connect
def count_scheduled_tasks(**_: Any) -> None:
    """In the beat process: note each task that has been sent."""
    after_task_publish.connect(note_scheduled_task)


def note_scheduled_task(headers: dict[str, Any], **_: Any) -> None:
    """Write down that beat sent this task."""
    ScheduledTask.objects.create(task_id=headers["id"])
