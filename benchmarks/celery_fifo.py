"""A kombu transport and a result backend between two processes that cost as little as one can.

A message is a pickle in a FIFO that the worker's event loop sleeps on, a result one in another
FIFO that the publisher sleeps on. One publisher, one worker, one queue, nothing is remembered: no
broker, but the floor for what `celery_deque` can't show, the way of a task to another process and
of its result back. What takes longer than here, a broker takes; the rest is Celery's own.
"""

from __future__ import annotations

import os
import pickle
import select
import struct
import time
from pathlib import Path
from typing import Any

from celery.backends.base import BaseBackend
from celery.exceptions import TimeoutError as CeleryTimeoutError
from kombu.transport import TRANSPORT_ALIASES

from . import celery_deque

NAME = "fifo"
LENGTH = struct.Struct("=I")


class Pipe:
    """Pickles in a FIFO, each with its length before it. Opened when first used, for both ways."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None

    def fileno(self) -> int:
        """The descriptor."""
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR)  # so that it never ends
        return self._file

    def put(self, value: Any) -> None:
        """Write one; as long as it is short, in one piece."""
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        os.write(self.fileno(), LENGTH.pack(len(data)) + data)

    def get(self) -> Any:
        """Read one, or wait for one."""
        (length,) = LENGTH.unpack(os.read(self.fileno(), LENGTH.size))
        return pickle.loads(os.read(self.fileno(), length))


class Channel(celery_deque.Channel):
    """A channel: what is published goes into the FIFO."""

    def basic_publish(
        self, message: dict[str, Any], exchange: str, routing_key: str, **kwargs: Any
    ) -> None:
        properties = message["properties"]
        properties["delivery_info"] = {"exchange": exchange, "routing_key": routing_key}
        properties["delivery_tag"] = id(message)
        self.connection.tasks.put(message)

    def _size(self, queue: str) -> int:
        return 0

    def _purge(self, queue: str) -> int:
        return 0


class Transport(celery_deque.LoopTransport):
    """The transport; its URL is `fifo://` and a folder with the two FIFOs."""

    Channel = Channel
    driver_type = driver_name = NAME

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.tasks = Pipe(Path("/", client.virtual_host) / "tasks")

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        loop.add_reader(self.tasks.fileno(), self._on_readable)

    def unregister_from_event_loop(self, connection: Any, loop: Any) -> None:
        loop.remove(self.tasks.fileno())

    def _on_readable(self) -> None:
        message = self.tasks.get()
        self._callbacks[message["properties"]["delivery_info"]["routing_key"]](message)


class Backend(BaseBackend):
    """The result backend of one publisher that waits for one result after the other."""

    def __init__(self, app: Any, url: str | None = None, **kwargs: Any) -> None:
        super().__init__(app, url=url, **kwargs)
        self._results = Pipe(Path(str(url).partition("://")[2]) / "results")

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        meta = self._get_result_meta(result, state, traceback, request)
        self._results.put({**meta, "task_id": task_id})
        return result

    def wait_for(
        self, task_id: str, timeout: float | None = None, **kwargs: Any
    ) -> dict[str, Any] | None:
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            left = None if end is None else max(end - time.monotonic(), 0)
            if not select.select([self._results], [], [], left)[0]:
                raise CeleryTimeoutError("The operation timed out.")
            meta: dict[str, Any] = self._results.get()
            if meta["task_id"] == task_id:
                return meta


def register() -> None:
    """Make kombu know the transport. Celery finds the backend by the name in its URL."""
    TRANSPORT_ALIASES.setdefault(NAME, f"{__name__}:Transport")


def make(folder: Path) -> tuple[str, str]:
    """Make the FIFOs; the URLs of the transport and of the backend."""
    folder.mkdir()
    for name in ("tasks", "results"):
        os.mkfifo(folder / name)
    return f"{NAME}://{folder}", f"{__name__}:Backend+{NAME}://{folder}"
