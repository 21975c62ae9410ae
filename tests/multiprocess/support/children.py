"""What child processes of these tests run; importable, so that `spawn` finds it."""

from __future__ import annotations

import os
import time
from multiprocessing.connection import Connection
from typing import Any

import celeriac


def until(condition: Any, seconds: float = 30) -> None:
    """Waits for what other processes do; fails when it doesn't happen."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def use_store(store: celeriac.Store, number: int) -> None:
    """Some of everything, on a handle that came from the parent."""
    store.cache().incr("visits")
    store.table("t").set(f"pid{number}", os.getpid())
    store.queue("q").put(f"from {number}")


def use_parts(
    cache: celeriac.Cache,
    table: celeriac.Table,
    queue: celeriac.Queue,
    beside: celeriac.Cache,
    asynchronous: Any,
) -> None:
    """The same on handles of its parts."""
    assert asynchronous.sync.get("k") is None
    cache.set("k", {"a": (1, 2)})
    assert asynchronous.sync.get("k") == {"a": [1, 2]}
    table.set("n", 1)
    beside.set("p:a:1", 1)
    message = queue.get(0)
    assert message is not None
    message.nack()


def take_and_hold(store: celeriac.Store, pipe: Connection, n: int = 1) -> None:
    """Reserves messages, says so, and keeps them until it is killed."""
    messages = store.queue("q").get_many(n, timeout=30)
    pipe.send([m.body for m in messages])
    time.sleep(600)


def take_and_ack(store: celeriac.Store, pipe: Connection) -> None:
    """Says that it waits, then takes one message."""
    pipe.send("waits")
    message = store.queue("q").get(timeout=60)
    assert message is not None
    message.ack()
    pipe.send((message.body, message.deliveries))


def report_identity(store: celeriac.Store, pipe: Connection) -> None:
    """Sends the owner that this process is."""
    store.cache().get("register me")
    pipe.send([o for o in store.owners() if o["pid"] == os.getpid()])


def attach_by_url(url: str, number: int) -> None:
    """Opens the store itself."""
    with celeriac.connect(url) as store:
        use_store(store, number)
