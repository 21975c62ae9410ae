"""A shorter way for tasks to the broker: ``Celery(amqp="celeriac.celery:AMQP")``.

Celery spends about 120 µs on a publish before any broker has seen it: copies of the queue and its
exchange to ask whether they were declared, some twenty settings by way of a chain of dictionaries,
two pools, a retry wrapper, and representations of the arguments built token by token. Nothing of
that changes from one task to the next. :class:`AMQP` is Celery's own, and knows a short way for
the tasks that need nothing special.

What goes the short way arrives *the same*: bytes of the message, routes, declaration of the queue,
``after_task_publish``, the parent task's trail, the result object. What isn't known to be the same
takes Celery's own way, unchanged, and costs what it costs there:

- another broker than celeriac; task protocol 1; a subclass of Celery with a ``send_task`` of its
  own; ``send_task`` by name instead of ``delay`` and ``apply_async``;
- ``eta``, ``countdown``, ``expires``, stamps, ``connection=``, and every other argument that isn't
  in :data:`ARGUMENTS`; inherited priority;
- routers that are functions or classes (they might count); a queue whose exchange isn't direct;
- receivers of ``before_task_publish``, which may change the message, or of the old ``task_sent``;
  ``task_send_sent_event``; a backend that wants to know of each task, as Redis's does;
- a ``Producer.publish`` that isn't kombu's: who traces replaces it (Sentry's SDK, New Relic);
- whatever raises on the short way. Nothing was put then, so Celery does it again, with its
  retries, its failover and its errors.

When the object is made, a message made here is compared with one of the installed Celery's; where
they differ there is no short way at all. ``tests/celery/test_celery_amqp.py`` compares what
arrives, over many signatures and options.

The pool of producers is asked for a channel once, and again when that channel's connection was
closed (``app.close()``, a fork, a pool that was reset). With ``broker_pool_limit=None``, where each
publish is to have a connection of its own, every publish takes Celery's way.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from celery.app.amqp import AMQP as CeleryAMQP
from celery.app.routes import MapRoute, Router
from celery.backends.base import Backend
from celery.utils.functional import maybe_list
from celery.utils.nodenames import anon_nodename
from celery.utils.saferepr import saferepr
from kombu import Producer, Queue
from kombu.common import Broadcast
from kombu.compression import compress
from kombu.entity import maybe_delivery_mode
from kombu.serialization import registry
from kombu.utils.json import dumps as kombu_dumps

from celeriac.celery import fastjson, task_counts
from celeriac.celery.channel import Channel
from celeriac.celery.messages import frame_of
from celeriac.request_id import put_into

__all__ = ["AMQP", "ARGUMENTS"]

#: Arguments of ``app.send_task`` that the short way knows: what Celery's ``apply_async`` gives for
#: a task that is called, alone, or as a part of a group, chain or chord.
ARGUMENTS = frozenset(
    {
        *("queue", "exchange", "routing_key", "priority", "delivery_mode", "immediate"),
        *("mandatory", "serializer", "compression", "headers", "retry", "retry_policy"),
        *("ignore_result", "time_limit", "soft_time_limit", "expires", "shadow", "retries"),
        *("root_id", "parent_id", "group_id", "group_index", "link", "link_error", "chain"),
        *("chord", "reply_to", "replaced_task_nesting", "add_to_parent"),
        *("task_type", "result_cls"),
    }
)

#: Representations longer than that are left to Celery, which cuts them at 1,024.
SHORT = 900

_PLAIN_TYPES = frozenset({int, float, bool, type(None)})

_encode = fastjson.encoder()

_Message = tuple[dict[str, Any], dict[str, Any], tuple[Any, Any, dict[str, Any]], None]


def new_id() -> str:
    """A random UUID as text, like ``str(uuid.uuid4())``."""
    raw = os.urandom(16).hex()
    variant = "89ab"[int(raw[16], 16) & 3]
    return f"{raw[:8]}-{raw[8:12]}-4{raw[13:16]}-{variant}{raw[17:20]}-{raw[20:]}"


def represented(args: Any, maxsize: int, maxlevels: int | None) -> str:
    """``saferepr`` of positional arguments, at once where they are numbers and short text."""
    if type(args) is tuple and maxsize > SHORT and (maxlevels is None or maxlevels > 0):
        parts = []
        size = 0
        for value in args:
            if type(value) in _PLAIN_TYPES:
                part = str(value)
            elif type(value) is str:
                part = "'" + value.replace("'", "\\'") + "'"
            else:
                break
            size += len(part) + 2
            if size > SHORT:
                break
            parts.append(part)
        else:
            return f"({', '.join(parts)},)" if len(parts) == 1 else f"({', '.join(parts)})"
    return str(saferepr(args, maxsize, maxlevels=maxlevels))


def _others_see_messages() -> bool:
    """Whether there is a receiver of ``before_task_publish`` whose work isn't done here, or
    somebody's function in the place of ``Producer.publish``."""
    if getattr(Producer.publish, "__globals__", None) is not Producer.__init__.__globals__:
        return True
    receivers = signals.before_task_publish.receivers
    return bool(receivers) and any(receiver is not put_into for _, receiver in receivers)


class AMQP(CeleryAMQP):
    """Celery's AMQP with the short way; see the head of this file. Thread-safe, fork-safe."""

    def __init__(self, app: Any) -> None:
        super().__init__(app)
        self._channel: Channel | None = None
        self._channels_pool: Any = None
        self._known_settings: dict[str, Any] = {}
        self._celery_send_task: Callable[..., Any] = app.send_task
        if type(app).send_task is Celery.send_task and self._makes_what_celery_makes():
            app.send_task = self._send_task

    def _send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: Any = None,
        eta: Any = None,
        task_id: str | None = None,
        producer: Any = None,
        *more: Any,
        **given: Any,
    ) -> Any:
        """In place of ``app.send_task``, with its arguments and its answer."""
        if not (countdown or eta or more):
            task_id = task_id or new_id()
            try:
                sent = self._send(name, args or (), kwargs or {}, task_id, producer, given)
            except Exception:  # nothing was put; Celery does better, or says why not
                self._channel = None
            else:
                if sent is not None:
                    return self._answer(task_id, name, *sent, given)
        return self._celery_send_task(
            name, args, kwargs, countdown, eta, task_id, producer, *more, **given
        )

    def _send(
        self, name: str, args: Any, kwargs: Any, task_id: str, producer: Any, given: dict[str, Any]
    ) -> tuple[_Message, str, Any] | None:
        """Put the task into its queue; None, and nothing done, where Celery's way is to be taken.

        Returns the message, the routing key and the parent task.
        """
        get = given.get
        setting = self._setting
        if (
            get("task_type") is None
            or get("expires") is not None
            or not ARGUMENTS.issuperset(given)
            or _others_see_messages()
            or signals.task_sent.receivers
            or setting("task_send_sent_event")
            or setting("task_protocol") != 2
        ):
            return None
        app = self.app
        ignored = get("ignore_result")
        if not ignored and type(app.backend).on_task_call is not Backend.on_task_call:
            return None
        channel = self._channel_of(producer)
        destination = None if channel is None else self._destination(name, get)
        if channel is None or destination is None:
            return None
        queue, priority = destination
        root_id, parent_id = get("root_id"), get("parent_id")
        parent = app.current_worker_task
        if parent is not None and not (root_id and parent_id):
            if setting("task_inherit_parent_priority"):
                return None
            root_id = root_id or parent.request.root_id or parent.request.id
            parent_id = parent_id or parent.request.id
        reply_to = get("reply_to") or app.thread_oid
        message = self._message(task_id, name, args, kwargs, root_id, parent_id, reply_to, get)
        headers, properties, body, _ = message
        headers.update(get("headers") or ())
        put_into(headers)
        content_type, encoding, payload = _serialized(
            body, get("serializer") or setting("task_serializer")
        )
        compression = get("compression") or setting("task_compression")
        if compression:
            payload, headers["compression"] = compress(payload, compression)
        properties["delivery_mode"] = maybe_delivery_mode(
            get("delivery_mode")
            or queue.exchange.delivery_mode
            or setting("task_default_delivery_mode")
        )
        properties["priority"] = priority or 0
        routing_key = queue.name
        frame = frame_of((content_type, encoding, headers, properties, "", routing_key), payload)
        declared = channel.connection.client.declared_entities
        if hash(queue) not in declared:
            queue(channel).declare()
            declared.add(hash(queue))
        channel.publish_frame(frame, properties, routing_key)
        task_counts.sent(name, routing_key)
        return message, routing_key, parent

    def _answer(
        self,
        task_id: str,
        name: str,
        message: _Message,
        routing_key: str,
        parent: Any,
        given: dict[str, Any],
    ) -> Any:
        """What follows when the message is put; the task must not be sent again from here on."""
        after = signals.after_task_publish
        if after.receivers:
            headers, _, body, _ = message
            after.send(
                sender=name, body=body, headers=headers, exchange="", routing_key=routing_key
            )
        result = (given.get("result_cls") or self.app.AsyncResult)(task_id)
        result.ignored = given.get("ignore_result")
        if parent is not None and given.get("add_to_parent", True):
            parent.add_trail(result)
        return result

    # --- the message ----------------------------------------------------------------------

    def _message(
        self,
        task_id: str,
        name: str,
        args: Any,
        kwargs: Any,
        root_id: str | None,
        parent_id: str | None,
        reply_to: str,
        get: Callable[..., Any],
    ) -> _Message:
        """As ``as_task_v2`` of a task without ETA, expiry and stamps; `get` knows the arguments."""
        if not isinstance(args, tuple | list) or not isinstance(kwargs, dict):
            raise TypeError("Celery says what is wrong with them")
        levels = self._setting("task_repr_maxlevels")
        headers = {
            "lang": "py",
            "task": name,
            "id": task_id,
            "shadow": get("shadow"),
            "eta": None,
            "expires": None,
            "group": get("group_id"),
            "group_index": get("group_index"),
            "retries": get("retries", 0),
            "timelimit": [get("time_limit"), get("soft_time_limit")],
            "root_id": root_id or task_id,
            "parent_id": parent_id,
            "argsrepr": represented(args, self.argsrepr_maxsize, levels),
            "kwargsrepr": (
                saferepr(kwargs, self.kwargsrepr_maxsize, maxlevels=levels) if kwargs else "{}"
            ),
            "origin": anon_nodename(),
            "ignore_result": get("ignore_result"),
            "replaced_task_nesting": get("replaced_task_nesting", 0),
            "stamped_headers": None,
            "stamps": {},
        }
        embed = {
            "callbacks": maybe_list(get("link")),
            "errbacks": maybe_list(get("link_error")),
            "chain": get("chain"),
            "chord": get("chord"),
        }
        properties = {"correlation_id": task_id, "reply_to": reply_to}
        return headers, properties, (args, kwargs, embed), None

    def _makes_what_celery_makes(self) -> bool:
        """Whether the installed Celery's messages are those that are made here."""
        args, kwargs = (1, "it's", None), {"key": [0.5]}
        given: dict[str, Any] = {
            "retries": 2,
            "group_id": "g",
            "group_index": 3,
            "shadow": "s",
            "time_limit": 4,
            "soft_time_limit": 5,
            "ignore_result": True,
            "chain": [],
        }
        ids: dict[str, Any] = {"root_id": "r", "parent_id": "p", "reply_to": "o"}
        theirs = tuple(self.as_task_v2("id", "name", args, kwargs, **given, **ids))
        ours = self._message("id", "name", args, kwargs, "r", "p", "o", given.get)
        return ours == theirs and [*map(list, ours[:2])] == [*map(list, theirs[:2])]

    # --- where to -------------------------------------------------------------------------

    def _channel_of(self, producer: Any) -> Channel | None:
        """A channel of ours: that of the producer if one is given, else one of the pool's."""
        if producer is not None:
            channel = producer.channel
            return channel if type(channel) is Channel else None
        channel = self._channel
        pool = self._producer_pool
        if channel is not None and pool is not None and pool is self._channels_pool:
            transport = channel.connection
            if transport is not None and transport.is_open:
                return channel
        self._channel = None
        with self.app.producer_pool.acquire(block=True) as pooled:
            channel = pooled.channel
        if type(channel) is not Channel or channel.connection is None:
            return None
        self._channel, self._channels_pool = channel, self._producer_pool
        return channel if channel.connection.is_open else None

    def _destination(self, name: str, get: Callable[..., Any]) -> tuple[Queue, Any] | None:
        """The queue of a task, if it takes messages by its name, and the priority there."""
        router = self.router
        if get("exchange") or type(router) is not Router:
            return None
        queue, priority = get("queue"), get("priority")
        for routes in router.routes:
            if type(routes) is not MapRoute:
                return None
            found = routes(name)
            if found is None:
                continue
            if not found.keys() <= {"queue", "priority"}:
                return None
            queue = queue or found.get("queue")
            priority = found.get("priority") if priority is None else priority
            break
        queue = queue or self._setting("task_default_queue")
        if not isinstance(queue, Queue):
            queue = self.queues[queue]
        if queue.exchange.type != "direct" or isinstance(queue, Broadcast):
            return None
        return queue, priority

    def _setting(self, name: str) -> Any:
        """A setting. One that is assigned to ``app.conf`` counts at once."""
        changes = self.app.conf.changes
        if name in changes:
            return changes[name]
        try:
            return self._known_settings[name]
        except KeyError:
            value = self._known_settings[name] = self.app.conf[name]
            return value

    def _handle_conf_update(self, *args: Any, **kwargs: Any) -> None:
        self._known_settings = {}
        super()._handle_conf_update(*args, **kwargs)


def _serialized(body: Any, serializer: str) -> tuple[str, str, Any]:
    """As kombu's ``dumps``: content type, content encoding, payload."""
    if serializer == "json":
        codec = registry._encoders.get("json")
        if codec is not None and codec.encoder is kombu_dumps:
            return codec.content_type, codec.content_encoding, _encode(body)
    content_type, encoding, payload = registry.dumps(body, serializer=serializer)
    return content_type, encoding, payload
