"""A store seen as a message broker: queues by name, exchanges, publishing.

One :class:`Broker` per store and process, shared by every kombu connection to the same URL, so
that a pool of connections maps the store once. It holds no lock and no state that the store
doesn't hold, apart from handles and parsed copies.

How AMQP's attributes of a queue map onto a store's queue:

``exclusive``, or ``auto_delete`` with ``x-expires``
    A *transient* queue: bound to the process that declared it. It vanishes with that process,
    however it ends, so that reply, control and event queues leave nothing behind.
``x-message-ttl``
    Every publisher applies it. What has waited that long is dropped, or goes to the dead letters.
``x-max-length``
    The bound. The message that would be next makes room, as in RabbitMQ, and goes to the dead
    letters if there are any; with ``x-overflow`` ``reject-publish`` publishing raises
    :class:`celeriac.QueueFull` instead, and ``reject-publish-dlx`` sends the new message there.
``x-dead-letter-exchange``, ``x-dead-letter-routing-key``
    Where messages go that were rejected without requeue, expired, or had to give way; see
    ``dead_letters``.
``x-expires``
    A queue that nobody has consumed from, declared or looked at for that time is gone, with its
    messages. Nobody watches the clock: who next declares a queue with this argument, or names this
    one, finds it gone, and removes it. A consumer that died counts as having used the queue until
    that is found.
``x-max-priority``
    Higher priorities count as this one. Without it all of 0 to 255 are priorities.
transient with ``x-message-ttl``, or transient or ``auto_delete`` and bound to a fanout exchange
    Nobody waits for each single message: at most :data:`TRANSIENT_LENGTH` are kept, the oldest
    makes room, and :meth:`celeriac.queue.Queue.dropped` counts.
``x-delivery-limit``
    A message that came back more often is dead: it is in the store's list of dead messages.
``x-keep-done``, ``x-keep-failed``
    Not RabbitMQ's: ``[count, seconds]``, the options ``keep_done`` and ``keep_failed`` of
    :meth:`celeriac.store.Store.queue`.
``durable``, and all others
    Accepted; how durable a queue is says the URL.

``queue_arguments`` has the table in which these stand.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import celeriac
from celeriac.celery.dead_letters import DeadLetters
from celeriac.celery.queue_arguments import Arguments, ArgumentTable
from celeriac.celery.queue_uses import Uses
from celeriac.celery.revocations import Revocations
from celeriac.celery.routing import TABLE, Routes, not_found
from celeriac.celery.task_counts import count_in
from celeriac.errors import CeleriacError, StoreNotFound

if TYPE_CHECKING:
    from celeriac.queue import Queue
    from celeriac.store import Store

__all__ = ["CLAIM_SECONDS", "ONCE", "TRANSIENT_LENGTH", "Broker", "Declaration", "open_broker"]

#: Property of a message of which only one may be delivered, of all that name the same occurrence.
ONCE = "celeriac_once"

#: Seconds in which a second message of an occurrence is known for one.
CLAIM_SECONDS = 3600.0

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


class Broker(DeadLetters):
    """Queues and routes of one store. Thread-safe, fork-safe."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.routes = Routes(store.table(TABLE))
        self.consumers: Counter[str] = Counter()
        self.arguments = ArgumentTable(store.table("celeriac.celery.queues"))
        self.uses = Uses(store)
        self.revocations = Revocations(store.table("celeriac.celery.revoked"))
        self.beat = store.table("celeriac.celery.beat")
        self._claims = store.table("celeriac.celery.once")
        self._handles: dict[str, Queue] = {}
        self._existing: dict[str, Queue] = {}
        self._declared: dict[str, Declaration] = {}

    def usable(self) -> bool:
        """Whether the store is open and has not been destroyed by somebody."""
        try:
            self.store._core.has_queue("")
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
            self.remove_if_unused(name)
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
        asked = Arguments.of(arguments)
        transient = exclusive or (auto_delete and asked.expires is not None)
        options: dict[str, Any] = {}
        if asked.max_length is not None:
            options["max_length"] = asked.max_length
            buries = asked.dead_letter_exchange is not None
            options["drop_oldest"] = asked.overflow == "drop-head" and not buries
        elif transient and asked.ttl is not None:
            options.update(max_length=TRANSIENT_LENGTH, drop_oldest=True)
        if asked.delivery_limit is not None:
            options["max_deliveries"] = asked.delivery_limit + 1
        for kept in ("keep_done", "keep_failed"):
            if getattr(asked, kept) is not None:
                options[kept] = getattr(asked, kept)
        if transient:
            options["owner_bound"] = True
            asked = replace(asked, expires=None)  # it goes with its owner
        self._declared[name] = Declaration(
            transient, auto_delete, exclusive, bounded="max_length" in options
        )
        for expiring in self.arguments.expiring() if asked.expires is not None else ():
            with suppress(StoreNotFound):
                self.remove_if_unused(expiring)
        known = self.existing(name)
        news = bool(asked) and asked != self.arguments.get(name)
        self.arguments.set(name, asked)
        if asked.expires is not None:
            self.uses.touch(name)
        if known is None or (news and not transient):
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
        with suppress(StoreNotFound):
            self._find(name).delete()
        self._handles.pop(name, None)
        self._existing.pop(name, None)
        self._declared.pop(name, None)
        self._forget(name)
        self.routes.forget_queue(name)

    def _forget(self, name: str) -> None:
        self.arguments.forget(name)
        self.uses.forget(name)

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
            try:
                self._put(self.queue(routing_key), frame, priority, delay, ttl)
            except StoreNotFound:  # it was unused for too long; if the store is gone, so says this
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

    def claim(self, occurrence: str, message: str) -> bool:
        """Whether this message is the one to deliver of an occurrence; the first that asks is."""
        claims = self._claims
        if claims.add(occurrence, message, CLAIM_SECONDS):
            return True
        return bool(claims.get(occurrence, message) == message)

    def claimed(self, occurrence: str) -> bool:
        """Whether a message of that occurrence was delivered."""
        return occurrence in self._claims

    def _forget_vanished(self, name: str, exchange: str) -> None:
        self._existing.pop(name, None)
        has_queue = self.store.has_queue
        if self.routes.forget_queue(name, exchange, unless=lambda: has_queue(name)):
            self._forget(name)

    def _put(
        self, queue: Queue, frame: bytes, priority: int, delay: float, ttl: float | None
    ) -> None:
        arguments = self.arguments.get(queue.name)
        if arguments is not None:
            self.remove_if_unused(queue.name)
            if arguments.max_priority is not None:
                priority = min(priority, arguments.max_priority)
            if arguments.ttl is not None:
                ttl = arguments.ttl if ttl is None else min(ttl, arguments.ttl)
        if ttl is not None:
            ttl += delay  # it counts from when the message can be consumed
        if arguments is None or arguments.dead_letter_exchange is None:
            queue._core.put(frame, b"", priority, delay, ttl)  # all of it is checked already
        else:
            self._put_or_bury(queue, arguments, frame, priority, delay, ttl)

    def in_use(self, name: str) -> Callable[[], None]:
        """A consumer of this process uses a queue until what this returns is called."""
        arguments = self.arguments.get(name)
        if arguments is None or arguments.expires is None:
            return lambda: None
        return self.uses.enter(name)

    def remove_if_unused(self, name: str) -> None:
        """Remove a queue whose ``x-expires`` is over.

        Raises:
            StoreNotFound: it was.
        """
        arguments = self.arguments.get(name)
        if arguments is None or arguments.expires is None:
            return
        if self.uses.is_over(name, arguments.expires):
            self.delete(name)
            raise StoreNotFound(f"queue {name!r} was unused for {arguments.expires:g} s")

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
            count_in(broker.store)
        return broker
