"""The id of the request that this code runs for, in log records and in Celery's tasks.

A context variable, so that threads, tasks of asyncio and Celery's tasks each see their own. The
Django middleware sets it for a request. A task that is sent meanwhile carries it in its header
``request_id``, with any broker, and has it while it runs; so have the tasks that it sends.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from contextvars import ContextVar, Token
from typing import Any

__all__ = [
    "HEADER",
    "RequestIDFilter",
    "accepted",
    "carry_in_tasks",
    "current",
    "in_log_records",
    "new",
    "put_into",
    "request_id",
]

#: Of a task's message.
HEADER = "request_id"

#: Of the running context; None outside of any request.
request_id: ContextVar[str | None] = ContextVar("celeriac_request_id", default=None)

#: What log records say where there is no request.
NONE = "-"

_SANE = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,200}", re.ASCII)


def new() -> str:
    """An id that nothing else has: 32 hexadecimal digits."""
    return os.urandom(16).hex()


def accepted(given: str | None) -> str:
    """The id that a client or proxy gave, if it is sane, else a new one.

    Sane are 1 to 200 letters, digits and ``._~+/=:@-``: nothing that could break a header or forge
    a line of a log.
    """
    return given if given is not None and _SANE.fullmatch(given) else new()


def current() -> str | None:
    """The id of the request that this code runs for, or None."""
    return request_id.get()


class RequestIDFilter(logging.Filter):
    """Gives each record of a handler or logger ``request_id``, for its format; ``-`` without one.

    Needed only where no :func:`in_log_records` was called: the Django middleware has.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get() or NONE
        return True


def in_log_records() -> None:
    """Give every log record of the process ``request_id``. Idempotent; fork-safe.

    Beside a factory of records that was set before, not instead of it.
    """
    before = logging.getLogRecordFactory()
    if getattr(before, "celeriac", False):
        return

    def with_request_id(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.request_id = request_id.get() or NONE
        return record

    with_request_id.celeriac = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(with_request_id)


def put_into(headers: dict[str, Any], **kwargs: Any) -> None:
    """Add the running request's id to a task's headers, if there is a request and no id yet.

    A receiver of Celery's ``before_task_publish``.
    """
    running = request_id.get()
    if running is not None:
        headers.setdefault(HEADER, running)


_running: dict[str, Token[str | None]] = {}  # by the id of the task


def _begin(task_id: str, task: Any, **kwargs: Any) -> None:
    given = getattr(task.request, HEADER, None) or (task.request.headers or {}).get(HEADER)
    if isinstance(given, str):
        _running[task_id] = request_id.set(accepted(given))


def _end(task_id: str, **kwargs: Any) -> None:
    token = _running.pop(task_id, None)
    if token is not None:
        request_id.reset(token)


def carry_in_tasks() -> None:
    """Let Celery's tasks carry the id, if this process has loaded Celery. Idempotent."""
    if "celery.signals" not in sys.modules:
        return
    from celery import signals

    for signal, receiver in (
        (signals.before_task_publish, put_into),
        (signals.task_prerun, _begin),
        (signals.task_postrun, _end),
    ):
        signal.connect(
            receiver, weak=False, dispatch_uid=f"celeriac.request_id.{receiver.__name__}"
        )
