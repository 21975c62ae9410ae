"""A kombu transport that costs as little as one can: messages are objects in a deque.

Nothing is encoded, nothing is copied, no other process sees it, and nothing survives. It is no
broker, but the floor: what a publish or a task takes with it is Celery's and kombu's own time, and
no transport can be faster without changing those.

With the solo pool Celery asks such a transport for messages, as it does kombu's memory transport.
The prefork pool runs in kombu's event loop; for it there is a second transport, which the loop
calls before each time that it sleeps, without any descriptor.
"""

from __future__ import annotations

from collections import defaultdict, deque
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, virtual

NAME, LOOP_NAME = "floor", "floor-loop"

_queues: dict[str, deque[dict[str, Any]]] = defaultdict(deque)


class Channel(virtual.Channel):
    """A channel of the floor."""

    body_encoding = None
    do_restore = False

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> None:
        properties = message["properties"]
        properties["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
        properties["delivery_tag"] = id(message)
        _queues[routing_key].append(message)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        _queues[queue].append(message)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        try:
            return _queues[queue].popleft()
        except IndexError:
            raise Empty from None

    def _size(self, queue: str) -> int:
        return len(_queues[queue])

    def _purge(self, queue: str) -> int:
        size = len(_queues[queue])
        _queues[queue].clear()
        return size


class Transport(virtual.Transport):
    """The transport of the floor."""

    Channel = Channel
    driver_type = driver_name = NAME
    polling_interval = 0.001
    global_state = virtual.BrokerState()
    implements = virtual.Transport.implements

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.state = self.global_state

    def driver_version(self) -> str:
        return "1"


class LoopTransport(Transport):
    """The same for kombu's event loop; only for consumers in the publisher's process."""

    driver_type = driver_name = LOOP_NAME
    implements = Transport.implements.extend(asynchronous=True)

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        loop.on_tick.add(self._on_tick)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        loop.on_tick.discard(self._on_tick)

    def _on_tick(self) -> None:
        for channel in self.channels:
            may_consume = channel.qos.can_consume
            for name in channel._active_queues:
                queue, callback = _queues[name], self._callbacks[name]
                while queue and may_consume():
                    callback(queue.popleft())


def register(loop: bool = False) -> str:
    """Make kombu know it; its URL. With `loop` the one for the event loop."""
    name, transport = (LOOP_NAME, LoopTransport) if loop else (NAME, Transport)
    TRANSPORT_ALIASES.setdefault(name, f"{__name__}:{transport.__name__}")
    return f"{name}://"
