"""The shop's background work: three kinds of tasks, each retried up to three times.

The payment provider's, the mail service's and the warehouse's bad moments are played: one event in
ten fails at the first attempt, one in fifty at the second too. Which ones is decided by the event's
id, so every run meets the same. Retries wait 1 s, 2 s, 4 s.
"""

from __future__ import annotations

import time
from typing import Any

from celery import Task, shared_task
from django.db import transaction

from . import pages, reports
from .models import Order
from .task_log import Attempt

MAIL_SECONDS = 0.02  # how long the mail service takes to answer


class ServiceDown(Exception):
    """A service on which the task depends does not answer just now."""


RETRY = {
    "bind": True,
    "autoretry_for": (ServiceDown,),
    "max_retries": 3,
    "retry_backoff": 1,
    "retry_jitter": False,
}


@shared_task(**RETRY)
def handle_event(self: Task, event: dict[str, Any]) -> str:
    """Note the order's new state."""
    attempt = Attempt(self, "webhook")
    call_service(attempt, event["id"])
    with transaction.atomic():
        Order.objects.filter(pk=event["order"]).update(status=event["status"])
        attempt.done()
    return str(event["status"])


@shared_task(**RETRY)
def notify_customer(self: Task, event: dict[str, Any]) -> None:
    """Send the customer a mail."""
    attempt = Attempt(self, "notification")
    call_service(attempt, event["id"])
    time.sleep(MAIL_SECONDS)
    attempt.done()


@shared_task(**RETRY)
def refresh_analytics(self: Task, event_id: int | None = None) -> None:
    """Compute the sales figures of one period anew; without an event it is beat that asks."""
    attempt = Attempt(self, "analytics")
    if event_id is not None:
        call_service(attempt, event_id)
    pages.refresh_report(reports.PERIODS[0])
    attempt.done()


def failing_attempts(event_id: int) -> int:
    """How many attempts fail before the event's tasks succeed."""
    if event_id % 50 == 0:
        return 2
    return 1 if event_id % 10 == 0 else 0


def call_service(attempt: Attempt, event_id: int) -> None:
    """Meet the service's bad moment, if this attempt has one."""
    if attempt.number < failing_attempts(event_id):
        attempt.failed()
        raise ServiceDown
