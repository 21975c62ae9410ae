"""The queues that `benchmarks.queue` compares: put one body, take one and acknowledge it.

With Redis this is the reliable queue of its own documentation: LPUSH; BLMOVE to a list of the
consumer's own (RPOPLPUSH by its newer name), so that a body isn't lost with its consumer; LREM
when it is done. diskcache's Deque has no acknowledgement: what is taken is gone. It does less.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import celeriac

BODY = 256
DESCRIPTIONS = {
    "celeriac": "store.queue() on shm://: put, get, ack",
    "redis": "redis-py: LPUSH, BLMOVE to a list of the consumer's own, LREM; hiredis parser, "
    "unix socket, no persistence",
    "diskcache": "diskcache.Deque, files in memory (tmpfs): append, popleft; no acknowledgement",
}
AGAINST = {"celeriac": ("redis", "diskcache")}


@dataclass(frozen=True)
class Place:
    """Where the queues are."""

    store: str
    redis: str
    folder: str


class System(Protocol):
    """A queue as one process has it."""

    def put(self, body: bytes) -> None:
        """Add a body."""

    def take(self, timeout: float) -> bool:
        """Take one and acknowledge it; False when there was none for that long (at least 1 ms)."""


class Celeriac:
    """`store.queue()`."""

    def __init__(self, place: Place, name: str) -> None:
        self._queue = celeriac.connect(place.store).queue(name)

    def put(self, body: bytes) -> None:
        self._queue.put(body)

    def take(self, timeout: float) -> bool:
        message = self._queue.get(timeout)
        if message is None:
            return False
        if len(message.body) != BODY:
            raise AssertionError(f"a body of {len(message.body)} bytes")
        message.ack()
        return True


class Redis:
    """Two lists."""

    def __init__(self, place: Place, name: str) -> None:
        import redis

        self._client: Any = redis.Redis.from_url(place.redis)
        self._ready = name
        self._mine = f"{name}:{os.getpid()}"

    def put(self, body: bytes) -> None:
        self._client.lpush(self._ready, body)

    def take(self, timeout: float) -> bool:
        body = self._client.blmove(self._ready, self._mine, timeout, "RIGHT", "LEFT")
        if body is None:
            return False
        if len(body) != BODY:
            raise AssertionError(f"a body of {len(body)} bytes")
        self._client.lrem(self._mine, 1, body)
        return True


class Diskcache:
    """`diskcache.Deque`; it can't wait, so this polls."""

    def __init__(self, place: Place, name: str) -> None:
        diskcache: Any = importlib.import_module("diskcache")
        self._deque = diskcache.Deque(directory=str(Path(place.folder) / name))

    def put(self, body: bytes) -> None:
        self._deque.append(body)

    def take(self, timeout: float) -> bool:
        import time

        end = time.monotonic() + timeout
        while True:
            try:
                body = self._deque.popleft()
            except IndexError:
                if time.monotonic() >= end:
                    return False
                time.sleep(0.001)
            else:
                if len(body) != BODY:
                    raise AssertionError(f"a body of {len(body)} bytes")
                return True


MAKERS: dict[str, Callable[[Place, str], System]] = {
    "celeriac": Celeriac,
    "redis": Redis,
    "diskcache": Diskcache,
}


def available() -> dict[str, str]:
    """The systems that are installed, and what they are."""
    return {
        name: text
        for name, text in DESCRIPTIONS.items()
        if name != "diskcache" or importlib.util.find_spec("diskcache")
    }
