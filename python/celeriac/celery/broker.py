"""A store seen as a message broker: queues by name, exchanges, publishing.

One :class:`Broker` per store and process, shared by every kombu connection to the same URL, so
that a pool of connections maps the store once. It holds no lock and no state that the store
doesn't hold, apart from handles and parsed copies.

How AMQP's attributes of a queue map onto a store's queue:

``exclusive``, or ``auto_delete`` with ``x-expires``
    A *transient* queue: bound to the process that declared it. It vanishes with that process,
    however it ends, so that reply, control and event queues leave nothing behind.
``x-message-ttl``
    Kept beside the queue; every publisher applies it.
``x-max-length``
    The bound. The oldest message makes room, as in RabbitMQ, unless ``x-overflow`` asks for
    ``reject-publish``: then publishing raises :class:`celeriac.QueueFull`.
transient with ``x-message-ttl``, or transient or ``auto_delete`` and bound to a fanout exchange
    Nobody waits for each single message: at most :data:`TRANSIENT_LENGTH` are kept, the oldest
    makes room.
``x-max-priority``, ``x-expires``, ``durable``
    Accepted. All of 0 to 255 are priorities everywhere, and how durable a queue is says the URL.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import celeriac
from celeriac.celery.routing import TABLE, Routes, not_found
from celeriac.errors import CeleriacError, StoreNotFound

if TYPE_CHECKING:
    from celeriac.queue import Queue
    from celeriac.store import Store

__all__ = ["TRANSIENT_LENGTH", "Broker", "Declaration", "open_broker"]

#: Messages kept in a queue that may lose some: events, control commands, broadcasts.
TRANSIENT_LENGTH = 10_000

#: Handles kept open at most; names of reply queues come and go.
MAX_HANDLES = 1024


@dataclass(slots=True)
class Declaration:
    """What this process declared a queue to be."""

    transient: bool
    auto_delete: bool
    exclusive: bool
    bounded: bool


class Broker:
    """Queues and routes of one store. Thread-safe, fork-safe."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.routes = Routes(store.table(TABLE))
        self.consumers: Counter[str] = Counter()
        self._ttl_table = store.table("celeriac.celery.queues")
        self._ttls: dict[str, tuple[int, float | None]] = {}
        self._handles: dict[str, Queue] = {}
        self._existing: dict[str, Queue] = {}
        self._declared: dict[str, Declaration] = {}

    def usable(self) -> bool:
        """Whether the store is open and has not been destroyed by somebody."""
        try:
            self.store.has_queue("")
        except CeleriacError:
            return False
        return not self.store.closed

    def queue(self, name: str) -> Queue:
        """The queue of that name; a plain one is created when there is none, now or later."""
        try:
            return self._handles[name]
        except KeyError:
            return self._keep(name, self.store.queue(name))

    def consumable(self, name: str) -> Queue:
        """The queue to consume from; one that lives for its owner is not created again.

        Raises:
            StoreNotFound: such a queue is gone.
        """
        declared = self._declared.get(name)
        return self._find(name) if declared and declared.transient else self.queue(name)

    def existing(self, name: str) -> Queue | None:
        """The queue of that name, or None when there is none.

        The handle does not bring the queue back either, should it vanish: using it then raises
        StoreNotFound.
        """
        try:
            queue = self._find(name)
            queue.counts()
        except StoreNotFound:
            self._existing.pop(name, None)
            return None
        return queue

    def _find(self, name: str) -> Queue:
        queue = self._existing.get(name)
        if queue is None:
            queue = self.store.queue(name, create=False)
            if len(self._existing) >= MAX_HANDLES:
                self._existing.clear()
            self._existing[name] = queue
        return queue

    def declare(
        self,
        name: str,
        *,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> Queue:
        """Create a queue, or open the one that exists, whatever it was declared as."""
        arguments = arguments or {}
        ttl = arguments.get("x-message-ttl")
        length = arguments.get("x-max-length")
        transient = exclusive or (auto_delete and "x-expires" in arguments)
        options: dict[str, Any] = {}
        if length is not None:
            options["max_length"] = int(length)
            options["drop_oldest"] = arguments.get("x-overflow", "drop-head") == "drop-head"
        elif transient and ttl is not None:
            options.update(max_length=TRANSIENT_LENGTH, drop_oldest=True)
        if transient:
            options["owner_bound"] = True
        self._declared[name] = Declaration(
            transient, auto_delete, exclusive, bounded="max_length" in options
        )
        self._declare_ttl(name, None if ttl is None else float(ttl) / 1000.0)
        known = self.existing(name)
        if known is None:
            return self._keep(name, self.store.queue(name, **options))
        return self._handles.get(name) or (known if transient else self.queue(name))

    def declaration(self, name: str) -> Declaration | None:
        """What this process declared the queue to be, or None."""
        return self._declared.get(name)

    def bind(self, name: str, exchange: str, routing_key: str) -> None:
        """Bind a queue to an exchange.

        Raises:
            ChannelError: there is no such exchange.
        """
        declared = self._declared.get(name)
        if declared is not None and (declared.transient or declared.auto_delete):
            known = self.routes.get(exchange)
            if known is not None and known.type == "fanout":
                self._make_bounded(name, declared)
        transient = declared is not None and declared.transient
        self.routes.bind(exchange, routing_key, name, always=transient)

    def _make_bounded(self, name: str, declared: Declaration) -> None:
        if declared.bounded and declared.transient:
            return
        counts = self.queue(name).counts()
        if counts.ready or counts.delayed or counts.reserved:
            return
        self.queue(name).delete()
        queue = self.store.queue(
            name, max_length=TRANSIENT_LENGTH, drop_oldest=True, owner_bound=True
        )
        declared.bounded = declared.transient = True
        self._keep(name, queue)

    def delete(self, name: str) -> None:
        """Remove a queue with its messages and bindings. Missing is fine."""
        queue = self.existing(name)
        if queue is not None:
            queue.delete()
        self._handles.pop(name, None)
        self._existing.pop(name, None)
        self._declared.pop(name, None)
        self._ttls.pop(name, None)
        self._ttl_table.delete(name)
        self.routes.forget_queue(name)

    def publish(
        self,
        frame: bytes,
        exchange: str,
        routing_key: str,
        *,
        priority: int = 0,
        delay: float = 0.0,
        ttl: float | None = None,
    ) -> int:
        """Put one message into every queue that it is routed to; returns how many those are.

        The default exchange ``""`` routes to the queue named by the routing key and creates it
        when it is missing, so that a task that is sent before any worker has ever run waits.

        Raises:
            ChannelError: there is no such exchange.
            QueueFull: a bounded queue is full.
            NotEnoughMemory: the store is full.
        """
        if not exchange:
            self._put(self.queue(routing_key), frame, priority, delay, ttl)
            return 1
        known = self.routes.get(exchange)
        if known is None:
            raise not_found("exchange", exchange, "basic_publish")
        delivered = 0
        for name in known.route(routing_key):
            try:
                self._put(self._find(name), frame, priority, delay, ttl)
            except StoreNotFound:  # its owner died, or it was deleted without being unbound
                self._forget_vanished(name, exchange)
            else:
                delivered += 1
        return delivered

    def _forget_vanished(self, name: str, exchange: str) -> None:
        self._existing.pop(name, None)
        has_queue = self.store.has_queue
        if self.routes.forget_queue(name, exchange, unless=lambda: has_queue(name)):
            self._ttl_table.delete(name)

    def _put(
        self, queue: Queue, frame: bytes, priority: int, delay: float, ttl: float | None
    ) -> None:
        queue_ttl = self.ttl(queue.name)
        if queue_ttl is not None:
            ttl = queue_ttl if ttl is None else min(ttl, queue_ttl)
        if ttl is not None:
            ttl += delay  # it counts from when the message can be consumed
        queue.put(frame, priority=priority, delay=delay, ttl=ttl)

    def ttl(self, name: str) -> float | None:
        """Seconds that a message may stay in a queue (``x-message-ttl``), or None."""
        count = self._ttl_table.change_count(name)
        known = self._ttls.get(name)
        if known is not None and known[0] == count:
            return known[1]
        ttl = self._ttl_table.get(name)
        if len(self._ttls) >= MAX_HANDLES:
            self._ttls.clear()
        self._ttls[name] = (count, ttl)
        return None if ttl is None else float(ttl)

    def _declare_ttl(self, name: str, ttl: float | None) -> None:
        if self.ttl(name) != ttl:
            if ttl is None:
                self._ttl_table.delete(name)
            else:
                self._ttl_table.set(name, ttl)

    def _keep(self, name: str, queue: Queue) -> Queue:
        if len(self._handles) >= MAX_HANDLES:
            self._handles.clear()
        self._handles[name] = queue
        return queue


_brokers: weakref.WeakValueDictionary[tuple[str, str], Broker] = weakref.WeakValueDictionary()
_lock = threading.Lock()


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def open_broker(url: str, options: dict[str, Any]) -> Broker:
    """The broker of a URL, one per process as long as somebody uses it.

    Raises:
        ConfigurationError: the URL or an option is wrong, or its engine does not exist.
        CeleriacError: the store can't be opened; see :func:`celeriac.connect`.
    """
    key = (url, repr(sorted(options.items())))
    with _lock:
        broker = _brokers.get(key)
        if broker is None or not broker.usable():
            broker = _brokers[key] = Broker(celeriac.connect(url, **options))
        return broker
