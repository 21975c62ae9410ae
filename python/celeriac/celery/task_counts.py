"""Counts of tasks, in the store of the broker: what celery-exporter counts from events.

Families have celery-exporter's names and labels, so that its dashboards and alerts work, but
nobody consumes events for them: each process counts what happens in it, by Celery's signals, and
by the transport what is put into the store and taken out. What a dead worker counted stays counted.
They are in ``store.metrics.exposition()``, and so wherever :func:`celeriac.prometheus.install` is.

``celery_task_{sent,received,started,succeeded,failed,rejected,revoked,retried}_total`` with the
labels ``name``, ``hostname``, ``queue_name`` (and ``exception`` of failed ones), and the histogram
``celery_task_runtime`` of those that succeeded. How long queues are, and who consumes from them:
:mod:`celeriac.own_metrics`.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celeriac.errors import CeleriacError

if TYPE_CHECKING:
    from celeriac.store import Store

__all__ = ["COUNTED", "count_in", "install", "received", "sent"]

COUNTED = {
    "sent": "Sent when a task message is published.",
    "received": "Sent when the worker receives a task.",
    "started": "Sent just before the worker executes the task.",
    "succeeded": "Sent if the task executed successfully.",
    "failed": "Sent if the execution of the task failed.",
    "rejected": "The task was rejected by the worker, possibly to be re-queued or dead lettered.",
    "revoked": "Sent if the task has been revoked.",
    "retried": "Sent if the task failed, but will be retried in the future.",
}
LABELS = ["name", "hostname", "queue_name"]
DEFAULT_QUEUE = "celery"

logger = logging.getLogger("celeriac.celery")
_lock = threading.Lock()
_counts: TaskCounts | None = None
_listening = False
_tried: int | None = None  # the process that looked for its broker


class _Row:
    """What is called for each task of a name and queue, looked up once."""

    __slots__ = ("_make", "_succeeded", "_took", "started")

    def __init__(self, make: Callable[[str], Any]) -> None:
        self._make = make
        self._succeeded: Callable[[], None] | None = None
        self._took: Callable[[float], None] = _Nothing.observe
        self.started: Callable[[], None] = make("started").inc

    def ended(self, seconds: float) -> None:
        """One that succeeded."""
        if self._succeeded is None:
            self._took = self._make("runtime").observe
            self._succeeded = self._make("succeeded").inc
        self._succeeded()
        self._took(seconds)


class TaskCounts:
    """The families of one store, made on first use. Thread-safe, fork-safe."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._hostname = socket.gethostname()
        self._made: dict[tuple[str, ...], Any] = {}
        self._rows: dict[tuple[str, str | None], _Row] = {}

    def count(self, what: str, name: str, queue: str, *more: str) -> None:
        """One more."""
        child = self._made.get((what, name, queue, *more))
        if child is None:
            child = self._make(what, name, queue, *more)
        try:
            child.inc()
        except CeleriacError as error:
            logger.debug("a task isn't counted: %s", error)

    def row(self, name: str, queue: str | None) -> _Row:
        """Those of a task and the routing key that it came by."""
        row = self._rows.get((name, queue))
        if row is None:
            of = (name, str(queue or DEFAULT_QUEUE))
            row = self._rows[(name, queue)] = _Row(lambda what: self._make(what, *of))
        return row

    def _make(self, what: str, name: str, queue: str, *more: str) -> Any:
        metrics = self.store.metrics
        try:
            if what == "runtime":
                text = "Histogram of task runtime measurements."
                family: Any = metrics.histogram("celery_task_runtime", text, LABELS)
            else:
                labels = [*LABELS, "exception"] if what == "failed" else LABELS
                family = metrics.counter(f"celery_task_{what}", COUNTED[what], labels)
            child = family.labels(name, self._hostname, queue, *more)
        except CeleriacError as error:
            logger.warning("tasks that were %s aren't counted: %s", what, error)
            child = _Nothing
        key = (what, name, queue, *more)
        self._made[key] = child
        return child


class _Nothing:
    """A metric that can't be."""

    @staticmethod
    def inc() -> None:
        """Count nothing."""

    @staticmethod
    def observe(seconds: float) -> None:
        """Count nothing."""


def count_in(store: Store) -> None:
    """Count this process's tasks in a store; the broker that was opened last has them."""
    global _counts
    _counts = TaskCounts(store)


def install() -> None:
    """Listen to what Celery says of tasks, if the process has loaded it. Idempotent.

    The processes of a pool are forked before the worker opens its broker, so each of them opens it
    at its first task.
    """
    global _listening
    with _lock:
        if _listening or "celery" not in sys.modules:
            return
        _listening = True
    from celery import signals

    signals.task_prerun.connect(_started, weak=False)
    signals.task_postrun.connect(_ended, weak=False)
    signals.task_failure.connect(_failed, weak=False)
    signals.task_retry.connect(_retried, weak=False)
    signals.task_revoked.connect(_revoked, weak=False)


def _count(what: str, name: str, queue: str, *more: str) -> None:
    if _counts is not None:
        _counts.count(what, name, queue, *more)


def _find_broker(app: Any) -> None:
    """Opens the application's broker, once, if it is one of ours."""
    global _tried
    if _counts is not None or _tried == os.getpid():
        return
    _tried = os.getpid()
    try:
        with app.connection_for_write() as connection:
            if connection.transport.driver_type == "celeriac":
                connection.connect()
    except Exception as error:
        logger.warning("tasks aren't counted: %s", error)


def _queue_of(request: Any) -> str:
    info = getattr(request, "delivery_info", None) or {}
    return str(info.get("routing_key") or DEFAULT_QUEUE)


def sent(name: str, routing_key: str) -> None:
    """Count a message that was put. Called by who puts it: a signal would cost more than that."""
    _count("sent", name, routing_key or DEFAULT_QUEUE)


def received(name: str, queue: str) -> None:
    """Count a message that a consumer was given. Called by who gives it, as `sent`."""
    _count("received", name, queue)


# The next two are called for each task: what they need is looked up once, and `task.request`, which
# takes longer than all the rest, but for the first. Between them a task is known by its id; Celery
# calls the second whatever becomes of the task.
_began: dict[str, tuple[float, _Row]] = {}


def _started(task: Any, task_id: str = "", **rest: Any) -> None:
    request = task.request
    if request.is_eager:
        return
    if _counts is None:
        _find_broker(task.app)
        if _counts is None:
            return
    info = request.delivery_info
    row = _counts.row(task.name, info.get("routing_key") if info else None)
    _began[task_id] = (time.perf_counter(), row)
    try:
        row.started()
    except CeleriacError as error:
        logger.debug("a task isn't counted: %s", error)


def _ended(task: Any, task_id: str = "", state: Any = None, **rest: Any) -> None:
    began = _began.pop(task_id, None)
    if began is None:
        return
    if state == "SUCCESS":
        try:
            began[1].ended(time.perf_counter() - began[0])
        except CeleriacError as error:
            logger.debug("a task isn't counted: %s", error)
    elif state == "REJECTED":
        _count("rejected", task.name, _queue_of(task.request))


def _failed(sender: Any, task_id: Any = None, exception: Any = None, **rest: Any) -> None:
    request = sender.request
    if request.is_eager:
        return
    queue = _queue_of(request)
    if request.id != task_id:  # said of a process of the pool that is dead, without the request
        consumed = list(sender.app.amqp.queues.consume_from)
        queue = consumed[0] if len(consumed) == 1 else DEFAULT_QUEUE
    _count("failed", sender.name, queue, type(exception).__name__)


def _retried(sender: Any, request: Any = None, **rest: Any) -> None:
    _count("retried", sender.name, _queue_of(request))


def _revoked(sender: Any, request: Any = None, **rest: Any) -> None:
    _count("revoked", sender.name, _queue_of(request))
