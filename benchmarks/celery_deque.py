"""A kombu transport that costs as little as one can: messages are objects in a deque.

Nothing is encoded, nothing is copied, no other process sees it, and nothing survives. It is no
broker, but the floor: what a publish or a task takes with it is Celery's and kombu's own time, and
no transport can be faster without changing those.
"""

from __future__ import annotations

from collections import defaultdict, deque
from queue import Empty
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, virtual

NAME = "floor"

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


def register() -> str:
    """Make kombu know it; its URL."""
    TRANSPORT_ALIASES.setdefault(NAME, f"{__name__}:Transport")
    return f"{NAME}://"
