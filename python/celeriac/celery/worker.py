"""The few places where a Celery worker has to be told about the transport.

Some features are switched on for drivers that are on a list: mingle and gossip keep theirs in a
class attribute, ``worker_disable_prefetch`` compares with one name. The transport does what those
features need, so celeriac adds itself. And ``inspect scheduled`` lists the tasks with an ETA that
a worker holds; here they wait in the store, so the list is completed from there, with the tasks
of the queues that the worker consumes from. Several workers list the same ones. Three more
places have modules: :mod:`celeriac.celery.chord_watch`, :mod:`celeriac.celery.given`, and
:mod:`celeriac.celery.task_counts`, which counts.

Celery is never imported for that: only what the process has loaded already is touched, and the
transport calls :func:`extend_celery` whenever a connection object is made, which is before Celery
looks.
"""

from __future__ import annotations

import functools
import logging
import sys
from types import MethodType
from typing import Any

from celeriac.celery import given, task_counts

__all__ = ["DRIVER", "extend_celery"]

DRIVER = "celeriac"

#: What Celery says of every task that a worker holds until its ETA.
WORKER_TIMER_PRIORITY = 6

#: Waiting tasks that ``inspect scheduled`` lists at most for each queue.
SCHEDULED_LIMIT = 1000


def extend_celery() -> None:
    """Put celeriac on the lists of the loaded parts of Celery. Idempotent."""
    for module, name in (
        ("celery.worker.consumer.mingle", "Mingle"),
        ("celery.worker.consumer.gossip", "Gossip"),
    ):
        step = getattr(sys.modules.get(module), name, None)
        transports = getattr(step, "compatible_transports", None)
        if isinstance(transports, set):
            transports.add(DRIVER)
    tasks = getattr(sys.modules.get("celery.worker.consumer.tasks"), "Tasks", None)
    if tasks is not None and not hasattr(tasks.start, "celeriac"):
        tasks.start = _with_prefetch_gate(tasks.start)
    if "celery.worker" in sys.modules:
        from celeriac.celery import chord_watch

        chord_watch.install()
    given.install()
    task_counts.install()
    panel = getattr(sys.modules.get("celery.worker.control"), "Panel", None)
    if panel is not None and "scheduled" in panel.data:
        held = panel.data["scheduled"]
        if not hasattr(held, "celeriac"):
            panel.data["scheduled"] = panel.data["dump_schedule"] = _with_waiting_tasks(held)


def revoke(task_id: str) -> None:
    """Let the worker that this process is, if it is one, drop a task that is about to reach it."""
    revoked = getattr(sys.modules.get("celery.worker.state"), "revoked", None)
    if revoked is not None:
        revoked.add(task_id)


def _with_prefetch_gate(start: Any) -> Any:
    """Make ``worker_disable_prefetch`` work, which Celery reserves to Redis."""

    @functools.wraps(start)
    def start_tasks(self: Any, c: Any) -> None:
        if not (
            c.app.conf.get("worker_disable_prefetch")
            and c.connection.transport.driver_type == DRIVER
        ):
            start(self, c)
            return
        logger = logging.getLogger("celery.worker.consumer.tasks")
        logger.addFilter(_not_the_warning)
        try:
            start(self, c)
        finally:
            logger.removeFilter(_not_the_warning)
        _close_gate_when_busy(c)

    start_tasks.celeriac = True  # type: ignore[attr-defined]
    return start_tasks


def _not_the_warning(record: logging.LogRecord) -> bool:
    return "worker_disable_prefetch" not in str(record.msg)


def _close_gate_when_busy(c: Any) -> None:
    """Let the channel consume only while a process of the pool is free."""
    from celery.worker import state

    qos = c.task_consumer.channel.qos
    may_consume = qos.can_consume

    def can_consume(self: Any) -> bool:
        limit = getattr(c.controller, "max_concurrency", None) or c.pool.num_processes
        return len(state.reserved_requests) < limit and bool(may_consume())

    qos.can_consume = MethodType(can_consume, qos)


def _with_waiting_tasks(scheduled: Any) -> Any:
    """Complete ``inspect scheduled`` by the tasks that wait in the store."""

    @functools.wraps(scheduled)
    def scheduled_everywhere(state: Any, **kwargs: Any) -> list[dict[str, Any]]:
        return [*scheduled(state, **kwargs), *_waiting_tasks(state.consumer)]

    scheduled_everywhere.celeriac = True  # type: ignore[attr-defined]
    return scheduled_everywhere


def _waiting_tasks(consumer: Any) -> list[dict[str, Any]]:
    channel = consumer.task_consumer and consumer.task_consumer.channel
    broker = getattr(channel and channel.connection, "broker", None)
    if broker is None or consumer.connection.transport.driver_type != DRIVER:
        return []
    from celeriac.celery.messages import decode_frame

    waiting = []
    for name in consumer.app.amqp.queues.consume_from:
        queue = broker.existing(name)
        for peeked in queue.delayed(SCHEDULED_LIMIT) if queue is not None else ():
            if not isinstance(peeked.body, bytes):
                continue  # damaged
            header, body = decode_frame(peeked.body)
            if header[2].get("task"):
                waiting.append(_describe(header, body, consumer.app, consumer.hostname))
    return sorted(waiting, key=lambda entry: str(entry["eta"]))


def _describe(header: Any, body: bytes, app: Any, hostname: str) -> dict[str, Any]:
    """A waiting task as ``Request.info`` shows one that the worker holds."""
    from kombu.serialization import loads, prepare_accept_content

    content_type, encoding, headers, properties, exchange, routing_key = header
    try:
        accept = prepare_accept_content(app.conf.accept_content)
        args, kwargs = loads(body, content_type, encoding, accept=accept)[:2]
    except Exception:  # not for this application to read; its own description will do
        args, kwargs = headers.get("argsrepr"), headers.get("kwargsrepr")
    return {
        "eta": headers.get("eta"),
        "priority": properties.get("priority") or WORKER_TIMER_PRIORITY,
        "request": {
            "id": headers.get("id"),
            "name": headers.get("task"),
            "args": args,
            "kwargs": kwargs,
            "type": headers.get("task"),
            "hostname": hostname,
            "time_start": None,
            "acknowledged": False,
            "delivery_info": {
                "exchange": exchange,
                "routing_key": routing_key,
                "priority": properties.get("priority") or 0,
                "redelivered": False,
            },
            "worker_pid": None,
        },
    }
