"""Messages that leave a queue without having been consumed, and where they go.

A queue with ``x-dead-letter-exchange`` hands on what was *rejected* without ``requeue``, what
*expired* there, and what had to give way to ``x-max-length``. The message is published anew, and
then acknowledged in its old queue, in this order: killed in between, it is there twice and not
gone. What it has been through stands in its headers, in RabbitMQ's words: ``x-first-death-reason``,
``x-first-death-queue``, ``x-first-death-exchange``, and ``x-death``, a list with one entry for each
pair of queue and reason, the latest first: ``queue``, ``reason``, ``count``, ``exchange``,
``routing-keys``, ``time``, and ``original-expiration``, as a message's own ``expiration`` is taken
away when it moves. A message that comes back to a queue for the same reason without ever having
been rejected goes in a circle and is dropped, as there.

The core of a store drops what expires. In a queue with dead letters the deadline therefore stands
in the message's headers in the store, and is looked at here: by who takes a message from the queue,
and by who takes its *alarm*. Queues with a time to live are often used without any consumer, to
let messages wait; the alarm is put, with a delay, into the queues that the exchange leads to now,
and who consumes from one of those takes it when it is due, and empties the first queue of what has
expired. So nobody has to watch, and nothing is polled. An alarm that is lost (somebody purged that
queue) is made up for by the next publisher, consumer or declaration that meets the queue.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from kombu.exceptions import ChannelError
from kombu.log import get_logger

from celeriac.celery.messages import MAGIC, decode_frame, frame_of
from celeriac.errors import NotEnoughMemory, QueueFull, StoreNotFound

if TYPE_CHECKING:
    from celeriac.celery.queue_arguments import Arguments, ArgumentTable
    from celeriac.celery.routing import Routes
    from celeriac.message import Message
    from celeriac.queue import Queue

__all__ = ["EXPIRED", "REJECTED", "DeadLetters", "alarm", "alarmed", "buried"]

logger = get_logger(__name__)

#: Name, in the store's headers of a message, of the time at which it expires.
DEADLINE = "deadline"

_ALARM = bytes((MAGIC, 0xA1))

EXPIRED, REJECTED, MAXLEN = "expired", "rejected", "maxlen"

#: Attempts to put into a full queue in which room was made, and taken by others.
PATIENCE = 100

#: Seconds after which a dead letter is tried again whose new queue was full.
PAUSE = 1.0


def alarm(queue: str) -> bytes:
    """What reminds a consumer elsewhere that messages of this queue have expired."""
    return _ALARM + queue.encode()


def alarmed(body: bytes) -> str | None:
    """The queue of an alarm; None when the bytes are a message."""
    return body[2:].decode() if body[:2] == _ALARM else None


def buried(
    frame: bytes, queue: str, reason: str, exchange: str, routing_key: str | None
) -> tuple[bytes, str, int] | None:
    """The message as it goes to the dead letters: frame, routing key, priority; None for one that
    goes in a circle.
    """
    (content_type, encoding, headers, properties, came_by, came_with), body = decode_frame(frame)
    deaths: list[dict[str, Any]] = list(headers.get("x-death") or ())
    known = [death for death in deaths if (death["queue"], death["reason"]) == (queue, reason)]
    if known and reason != REJECTED and all(death["reason"] != REJECTED for death in deaths):
        return None
    death: dict[str, Any] = {
        "queue": queue,
        "reason": reason,
        "count": known[0]["count"] + 1 if known else 1,
        "exchange": came_by,
        "routing-keys": [came_with],
        "time": int(time.time()),
    }
    expiration = properties.pop("expiration", None)
    if expiration is not None:
        death["original-expiration"] = expiration
    headers["x-death"] = [death, *(each for each in deaths if each not in known)]
    headers.setdefault("x-first-death-reason", reason)
    headers.setdefault("x-first-death-queue", queue)
    headers.setdefault("x-first-death-exchange", came_by)
    key = came_with if routing_key is None else routing_key
    moved = frame_of((content_type, encoding, headers, properties, exchange, key), body)
    return moved, key, int(properties.get("priority") or 0)


class DeadLetters:
    """The part of a broker that sees to the queues that have dead letters. Thread-safe."""

    routes: Routes
    arguments: ArgumentTable

    if TYPE_CHECKING:

        def queue(self, name: str) -> Queue:
            """The queue of that name."""

        def existing(self, name: str) -> Queue | None:
            """The queue of that name, or None when there is none."""

        def publish(self, frame: bytes, exchange: str, routing_key: str, *, priority: int) -> int:
            """Put one message into every queue that it is routed to."""

    def _put_or_bury(
        self,
        queue: Queue,
        arguments: Arguments,
        frame: bytes,
        priority: int,
        delay: float,
        ttl: float | None,
    ) -> None:
        """Put into a queue that has dead letters.

        Raises:
            QueueFull: nothing makes room there.
            CeleriacError: as publishing does.
        """
        headers = None if ttl is None else {DEADLINE: time.time() + ttl}
        for _ in range(PATIENCE):
            try:
                queue.put(frame, priority=priority, delay=delay, headers=headers)
                break
            except QueueFull:
                if arguments.max_length is None or arguments.overflow == "reject-publish":
                    raise
                if arguments.overflow == "reject-publish-dlx":
                    self._publish_dead(frame, queue.name, arguments, MAXLEN)
                    return
                first = queue.get(timeout=0)
                if first is None:
                    raise  # nothing is ready: it is full of what consumers hold
                self.bury(first, queue.name, MAXLEN)
        else:
            raise QueueFull(f"queue {queue.name!r}: others take the room that is made in it")
        if ttl is not None:
            self.sweep(queue.name)
            for target in self._targets(arguments, frame):
                with suppress(StoreNotFound, QueueFull):
                    target.put(alarm(queue.name), delay=ttl)

    def expired(self, message: Message) -> bool:
        """Whether a message that was taken has outlived its time."""
        deadline = message.headers.get(DEADLINE)
        return deadline is not None and bool(deadline <= time.time())

    def sweep(self, name: str) -> None:
        """Send on what has expired in a queue."""
        queue = self.existing(name)
        while queue is not None:
            first = queue.ready(1)
            deadline = first[0].headers.get(DEADLINE) if first else None
            if deadline is None or deadline > time.time():
                return
            message = queue.get(timeout=0)
            if message is None:
                return
            if not self.expired(message):  # another one, of a higher priority
                message.nack()
                return
            self.bury(message, name, EXPIRED)

    def bury(self, message: Message, name: str, reason: str) -> None:
        """End a message that was taken; it goes to its queue's dead letters if there are any.

        Raises:
            NotOwner: it isn't ours any more.
        """
        arguments = self.arguments.get(name)
        if arguments is not None and arguments.dead_letter_exchange is not None:
            try:
                self._publish_dead(message.body, name, arguments, reason)
            except (QueueFull, NotEnoughMemory) as error:
                logger.warning("A dead letter of queue %r has to wait: %s", name, error)
                message.nack(delay=PAUSE)
                return
        message.ack()

    def _publish_dead(self, frame: bytes, name: str, arguments: Arguments, reason: str) -> None:
        exchange = arguments.dead_letter_exchange or ""
        moved = buried(frame, name, reason, exchange, arguments.dead_letter_routing_key)
        if moved is None:
            logger.warning("A dead letter that goes in a circle is dropped in queue %r", name)
            return
        frame, routing_key, priority = moved
        try:
            self.publish(frame, exchange, routing_key, priority=priority)
        except ChannelError:
            logger.warning("Dead letters of queue %r: there is no exchange %r", name, exchange)

    def _targets(self, arguments: Arguments, frame: bytes) -> list[Queue]:
        """The queues that a dead letter would go to now."""
        key = arguments.dead_letter_routing_key
        if key is None:
            key = decode_frame(frame)[0][5]
        if not arguments.dead_letter_exchange:
            return [self.queue(key)]
        known = self.routes.get(arguments.dead_letter_exchange)
        found = (self.existing(name) for name in (known.route(key) if known else ()))
        return [queue for queue in found if queue is not None]
