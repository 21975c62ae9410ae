"""The channel: what kombu's producers and consumers call.

It stays a :class:`kombu.transport.virtual.Channel`, with the methods replaced that would keep
state in this process only or do work twice: exchanges and bindings are the store's, a message is
encoded once however many queues it goes to, and a delivery tag stands for the queue's own handle,
so acknowledging is one call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from queue import Empty
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from amqp.protocol import queue_declare_ok_t
from kombu.transport import virtual
from kombu.transport.base import to_rabbitmq_queue_arguments
from kombu.utils.uuid import uuid

from celeriac.celery import messages, task_counts, worker
from celeriac.celery.broker import ONCE
from celeriac.celery.dead_letters import EXPIRED, alarmed
from celeriac.celery.errors import operational
from celeriac.celery.messages import encode_frame, seconds_to_eta, time_to_live
from celeriac.celery.qos import QoS
from celeriac.celery.routing import not_found
from celeriac.errors import StoreNotFound
from celeriac.message import Message as NativeMessage

if TYPE_CHECKING:
    from celeriac.celery.broker import Broker
    from celeriac.queue import Queue

__all__ = ["Channel", "Subscription"]


def _nothing() -> None:
    """What is to be done when nothing is."""


class Subscription:
    """One consumer: a queue, a callback, and whether messages need acknowledging."""

    __slots__ = ("active", "callback", "channel", "no_ack", "on_end", "queue", "tag")

    def __init__(
        self,
        channel: Channel,
        tag: str,
        queue: Queue,
        callback: Callable[[Any], object],
        no_ack: bool,
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.queue = queue
        self.callback = callback
        self.no_ack = no_ack
        self.active = True
        self.on_end: Callable[[], None] = _nothing

    def wants(self) -> bool:
        """Whether it may be given a message now."""
        return self.active and self.channel.qos.can_consume()

    def deliver(self) -> bool:
        """Give the consumer its next message, if there is one."""
        try:
            message = self.channel.receive(self.queue, self.no_ack)
        except StoreNotFound:  # deleted by somebody else, as when a broker cancels a consumer
            self.channel.broker.store.has_queue(self.queue.name)  # raises when the store is gone
            self.active = False
            return False
        if message is None:
            return False
        self.callback(message)
        return True


class Channel(virtual.Channel):
    """A channel of a celeriac transport. Like every kombu channel, for one thread at a time;
    acknowledging from other threads is fine."""

    Message = messages.Message
    QoS = QoS

    supports_fanout = True
    body_encoding = None
    min_priority = 0
    max_priority = 255

    #: "rabbitmq": the higher number goes first. "redis": the lower one does.
    priority_order = "rabbitmq"

    #: Name of the time zone of ETAs that have none; such a task waits in a worker without it.
    eta_timezone: str | None = None

    from_transport_options = ("deadletter_queue", "eta_timezone", "priority_order")

    def __init__(self, connection: Any, **kwargs: Any) -> None:
        self._subscriptions: dict[str, Subscription] = {}
        self._pid = os.getpid()
        super().__init__(connection, **kwargs)
        self._delivery_tags = count(1)
        self._eta_zone = None if self.eta_timezone is None else ZoneInfo(self.eta_timezone)

    @property
    def broker(self) -> Broker:
        """The store behind the connection."""
        broker: Broker = self.connection.broker
        return broker

    # --- exchanges and bindings -----------------------------------------------------------

    @operational
    def exchange_declare(
        self,
        exchange: str | None = None,
        type: str = "direct",
        durable: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        nowait: bool = False,
        passive: bool = False,
    ) -> None:
        """Declare an exchange, or with ``passive`` check that it exists.

        Raises:
            ChannelError: unknown type; another type than the existing one; passive and missing.
        """
        type = type or "direct"
        exchange = exchange or f"amq.{type}"
        if not passive:
            self.broker.routes.declare(exchange, type, durable, auto_delete, arguments)
        elif self.broker.routes.get(exchange) is None:
            raise not_found("exchange", exchange, "exchange_declare")

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete an exchange and its bindings; with ``if_unused`` only when it has none."""
        known = self.broker.routes.get(exchange)
        if known is not None and not (if_unused and known.bindings):
            self.broker.routes.delete(exchange)

    @operational
    def queue_bind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Bind a queue to an exchange.

        Raises:
            ChannelError: there is no such exchange.
        """
        self.broker.bind(queue, exchange or "amq.direct", routing_key)

    def queue_unbind(
        self,
        queue: str,
        exchange: str | None = None,
        routing_key: str = "",
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Remove a binding, if it is there."""
        self.broker.routes.unbind(exchange or "amq.direct", routing_key, queue)

    def get_exchanges(self) -> list[str]:
        """Names of all exchanges of the store."""
        return self.broker.routes.names()

    def get_table(self, exchange: str) -> list[tuple[str, None, str]]:
        """Bindings of an exchange as (routing key, None, queue)."""
        known = self.broker.routes.get(exchange)
        return [(key, None, queue) for key, queue in known.bindings] if known else []

    def list_bindings(self) -> Iterator[tuple[str, str, str]]:
        """Every binding as (queue, exchange, routing key)."""
        return self.broker.routes.bindings()

    def typeof(self, exchange: str, default: str = "direct") -> Any:
        """kombu's object for the type of an exchange."""
        known = self.broker.routes.get(exchange)
        return self.exchange_types[known.type if known else default]

    def _lookup(
        self, exchange: str, routing_key: str, default: str | None = None
    ) -> tuple[str, ...]:
        known = self.broker.routes.get(exchange) if exchange else None
        queues = known.route(routing_key) if known else ()
        if not exchange:
            queues = (routing_key,)
        fallback = default or self.deadletter_queue
        return queues or ((fallback,) if fallback else ())

    # --- queues ---------------------------------------------------------------------------

    def prepare_queue_arguments(self, arguments: dict[str, Any], **kwargs: Any) -> Any:
        """Turn kombu's queue options into AMQP's ``x-`` arguments."""
        return to_rabbitmq_queue_arguments(arguments, **kwargs)

    @operational
    def queue_declare(
        self,
        queue: str | None = None,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Declare a queue; returns its name, its number of ready messages and 0.

        Raises:
            ChannelError: passive, and there is no such queue.
        """
        name = queue or f"amq.gen-{uuid()}"
        if passive:
            handle = self.broker.existing(name)
            if handle is None:
                raise not_found("queue", name, "queue_declare")
        else:
            handle = self.broker.declare(
                name, exclusive=exclusive, auto_delete=auto_delete, arguments=arguments
            )
            if exclusive:
                self.connection.exclusive.add(name)
        return queue_declare_ok_t(name, handle.counts().ready, 0)

    def queue_delete(
        self, queue: str, if_unused: bool = False, if_empty: bool = False, **kwargs: Any
    ) -> None:
        """Delete a queue with its messages and bindings. Missing is fine."""
        if if_unused and self.broker.consumers[queue]:
            return
        if if_empty and self._size(queue):
            return
        self.connection.exclusive.discard(queue)
        self.broker.delete(queue)

    def queue_purge(self, queue: str, **kwargs: Any) -> int:
        """Drop a queue's ready and delayed messages; returns how many."""
        return self._purge(queue)

    def _size(self, queue: str) -> int:
        handle = self.broker.existing(queue)
        return 0 if handle is None else int(handle.counts().ready)

    def _purge(self, queue: str) -> int:
        handle = self.broker.existing(queue)
        return 0 if handle is None else int(handle.purge())

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self.broker.existing(queue) is not None

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        self.queue_declare(queue, **kwargs)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self.broker.delete(queue)

    # --- publishing -----------------------------------------------------------------------

    @operational
    def basic_publish(
        self, message: dict[str, Any], exchange: str = "", routing_key: str = "", **kwargs: Any
    ) -> None:
        """Publish what :meth:`prepare_message` made.

        A task with an ETA waits in the store until it is due.

        Raises:
            ChannelError: there is no such exchange.
            QueueFull: a bounded queue is full and does not drop its oldest message.
            QueueFull, NotEnoughMemory: the store is full.
            LockTimeout: a process was stopped in the middle of a write.

        The last three are kombu's OperationalError too; see celeriac.celery.errors.
        """
        properties = message["properties"]
        headers = message["headers"]
        frame = encode_frame(message, exchange, routing_key)
        priority = self._priority(properties)
        delay = seconds_to_eta(headers, zone=self._eta_zone) if headers.get("eta") else 0.0
        # Of a task that has expired the worker says that it is revoked. Were it dropped here, who
        # waits for its result would wait for ever.
        expires = "expiration" in properties and not headers.get("expires")
        ttl = time_to_live(properties, None) if expires else None
        broker = self.broker
        if exchange:
            broker.revocations.overhear(exchange, message)
        routed = broker.publish(
            frame, exchange, routing_key, priority=priority, delay=delay, ttl=ttl
        )
        if not routed and self.deadletter_queue:
            broker.publish(frame, "", self.deadletter_queue, priority=priority, delay=delay)
        if "task" in headers:
            task_counts.sent(str(headers["task"]), routing_key)

    def publish_frame(self, frame: bytes, properties: dict[str, Any], queue: str) -> None:
        """Put a frame that is made already into one queue. Thread-safe.

        Raises:
            CeleriacError: nothing was put.
        """
        self.broker.publish(frame, "", queue, priority=self._priority(properties))

    def _priority(self, properties: dict[str, Any]) -> int:
        if properties.get("priority") == 0 and self.priority_order == "rabbitmq":
            return 0  # as nearly all
        return self._get_message_priority({"properties": properties})

    def _get_message_priority(self, message: dict[str, Any], reverse: bool = False) -> int:
        priority: int = super()._get_message_priority(message)
        if reverse != (self.priority_order == "redis"):
            return self.max_priority - priority
        return priority

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        self.basic_publish(message, "", queue)

    def _put_fanout(
        self, exchange: str, message: dict[str, Any], routing_key: str, **kwargs: Any
    ) -> None:
        self.basic_publish(message, exchange, routing_key)

    # --- consuming ------------------------------------------------------------------------

    def receive(self, queue: Queue, no_ack: bool) -> messages.Message | None:
        """Take the next message of a queue, or None. Without acknowledging it is done now."""
        broker = self.broker
        while True:
            core = queue._core.get(0)  # nobody waits for the queue's own descriptor
            if core is None:
                return None
            native = NativeMessage(core, queue)
            if core.headers and broker.expired(native):
                broker.bury(native, queue.name, EXPIRED)
                continue
            frame = core.body
            source = alarmed(frame)
            if source is not None:
                broker.sweep(source)
                native.ack()
                continue
            message = messages.Message(native, self, next(self._delivery_tags), frame)
            occurrence = message.properties.get(ONCE)
            if occurrence is None or broker.claim(occurrence, f"{queue.name} {native.id}"):
                if message.headers.get("eta") and message.headers.get("id") in broker.revocations:
                    worker.revoke(message.headers["id"])
                break
            native.ack()  # another message of the same occurrence was delivered
        if "task" in message.headers:
            key = message.delivery_info["routing_key"] or queue.name
            task_counts.received(str(message.headers["task"]), key)
        if no_ack:
            native.ack()
        else:
            self.qos.append(message, message.delivery_tag)
        return message

    def basic_get(self, queue: str, no_ack: bool = False, **kwargs: Any) -> messages.Message | None:
        """Take one message now, or None."""
        handle = self.broker.existing(queue)
        return None if handle is None else self.receive(handle, no_ack)

    def basic_consume(
        self,
        queue: str,
        no_ack: bool,
        callback: Callable[[Any], object],
        consumer_tag: str,
        **kwargs: Any,
    ) -> str:
        """Start consuming; returns the consumer's tag."""
        tag = consumer_tag or f"celeriac-{uuid()}"
        self.basic_cancel(tag)
        handle = self.broker.consumable(queue)
        subscription = Subscription(self, tag, handle, callback, bool(no_ack))
        self._subscriptions[tag] = subscription
        self._consumers.add(tag)
        self._tag_to_queue[tag] = queue
        self._active_queues.append(queue)
        self.broker.consumers[queue] += 1
        subscription.on_end = self.broker.in_use(queue)
        self.connection.subscribe(subscription)
        return tag

    def basic_cancel(self, consumer_tag: str) -> None:
        """Stop a consumer. The last one takes a queue with it that lived for its consumers."""
        subscription = self._subscriptions.pop(consumer_tag, None)
        if subscription is None:
            return
        queue = self._tag_to_queue.pop(consumer_tag)
        self._consumers.discard(consumer_tag)
        self._active_queues.remove(queue)
        subscription.active = False
        self.connection.unsubscribe(subscription)
        with suppress(StoreNotFound):
            subscription.on_end()
        broker = self.broker
        broker.consumers[queue] -= 1
        if broker.consumers[queue] > 0:
            return
        del broker.consumers[queue]
        declared = broker.declaration(queue)
        if declared is not None and declared.auto_delete and declared.transient:
            with suppress(StoreNotFound):  # the store is gone, and the queue with it
                self.queue_delete(queue)

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Acknowledge a message, with ``multiple`` also all delivered before it."""
        if multiple:
            self.qos.ack_until(delivery_tag)
        else:
            self.qos.ack(delivery_tag)

    def basic_qos(
        self, prefetch_size: int = 0, prefetch_count: int = 0, apply_global: bool = False
    ) -> None:
        """Set how many unacknowledged messages the channel may hold; 0 for any number."""
        self.qos.prefetch_count = prefetch_count or 0
        self.on_settled()

    def on_settled(self) -> None:
        """A message was settled: a full channel may be able to consume again."""
        if self.connection is not None:
            self.connection.on_settled()

    def on_acked(self) -> None:
        """A message was acknowledged, and the queue knows it."""
        if self.connection is not None:
            self.connection.on_acked()

    def drain_events(self, timeout: float | None = None, callback: Any = None) -> None:
        """Deliver one message to this channel's consumers.

        Raises:
            queue.Empty: none is ready.
        """
        for subscription in list(self._subscriptions.values()):
            if subscription.wants() and subscription.deliver():
                return
        raise Empty

    def message_to_python(self, raw_message: Any) -> Any:
        """Messages are Python objects from the start."""
        return raw_message

    def close(self) -> None:
        """Cancel the consumers and put unacknowledged messages back.

        In a forked child only the child's copy is dropped.
        """
        if not self.closed and self._pid != os.getpid():
            self.abandon()
        super().close()

    def abandon(self) -> None:
        """Forget consumers and messages, which are the parent process's."""
        self._subscriptions.clear()
        self._consumers.clear()
        self._tag_to_queue.clear()
        self._active_queues.clear()
        if self._qos is not None:
            self._qos._delivered.clear()
