"""Cancelling by id, and what a command line shows of a queue."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from queue_calls import FAR, after, bodies, take

from celeriac import Counts, Queue, Store


def test_cancel(queue: Queue) -> None:
    ids = queue.put_many([b"1", b"2", b"3"])
    later = queue.put(b"later", delay=FAR)
    assert queue.cancel(ids[1]) is True
    assert queue.cancel(ids[1]) is False
    assert queue.cancel(later) is True
    assert queue.counts() == Counts(2, 0, 0, 0, 0)
    assert bodies(queue) == [b"1", b"3"]
    assert queue.cancel(ids[0]) is False


def test_cancel_of_what_is_reserved_or_elsewhere(store: Store) -> None:
    queue, other = store.queue("q", max_deliveries=1), store.queue("other")
    number = queue.put(b"x")
    assert other.cancel(number) is False
    message = take(queue)
    assert queue.cancel(number) is False
    message.nack()
    assert queue.cancel(number) is False
    assert queue.counts() == Counts(0, 0, 0, 1, 0)
    assert queue.cancel("0" * 16) is False
    assert queue.cancel("f" * 16) is False


def test_cancelled_ones_take_no_memory(memory: Callable[[str], Store]) -> None:
    queue = memory("4M").queue("q")
    for _ in range(300_000):  # their timers alone would be more than there is
        assert queue.cancel(queue.put(b"x", delay=FAR))
    assert queue.counts() == Counts(0, 0, 0, 0, 0)
    queue.put(b"soon", delay=0.01)
    message = queue.get(timeout=30)
    assert message is not None
    assert message.body == b"soon"


@pytest.mark.parametrize(
    ("number", "error"), [(5, TypeError), (None, TypeError), ("x", ValueError), ("", ValueError)]
)
def test_what_is_no_id(queue: Queue, number: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="id"):
        queue.cancel(number)


def test_oldest_age(queue: Queue) -> None:
    assert queue.oldest_age() is None
    queue.put(b"later", delay=FAR)
    assert queue.oldest_age() is None
    begin = time.monotonic()
    queue.put_many([b"1", b"2"])
    after(0.05)
    age = queue.oldest_age()
    assert age is not None
    assert 0.05 <= age <= time.monotonic() - begin
    messages = queue.get_many(2)
    assert queue.oldest_age() is None
    messages[0].nack()
    assert (queue.oldest_age() or 0) >= age


def test_consumers(queue: Queue, python: Callable[[str], subprocess.Popen[str]]) -> None:
    assert queue.consumers() == []
    queue.put_many([b"1", b"2", b"3"])
    held = queue.get_many(2)
    (ours,) = queue.consumers()
    assert (ours.pid, ours.reserved, ours.waiting) == (os.getpid(), 2, False)
    assert ours.command
    for message in held:
        message.ack()
    queue.purge()
    assert queue.consumers() == []
    process = python("""
print("waits", flush=True)
store.queue("q").get()
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    deadline = time.monotonic() + 30
    while not queue.consumers() and time.monotonic() < deadline:
        time.sleep(0.01)
    (theirs,) = queue.consumers()
    assert (theirs.pid, theirs.reserved, theirs.waiting) == (process.pid, 0, True)
