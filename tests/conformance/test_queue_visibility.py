"""Reservations that end by themselves, for workers that live but hang."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from queue_calls import after, bodies, take

import celeriac
from celeriac import Counts, Queue, Store


def test_off_by_default(queue: Queue) -> None:
    queue.put(b"x")
    message = take(queue)
    assert queue.get(timeout=0.1) is None
    message.ack()


def test_delivered_again_after_its_time(store: Store) -> None:
    queue = store.queue("q", visibility=0.1)
    number = queue.put(b"x")
    begin = time.monotonic()
    first = take(queue)
    second = queue.get(timeout=30)
    assert time.monotonic() - begin >= 0.1
    assert second is not None
    assert (second.id, second.deliveries, second.redelivered) == (number, 2, True)
    for late in (first.ack, first.nack, lambda: first.extend(5), lambda: first.nack(reason="x")):
        with pytest.raises(celeriac.NotOwner):
            late()
    assert first.reason is None
    second.ack()
    assert queue.counts() == Counts(0, 0, 0, 0, 1)


def test_what_is_done_in_time_stays_done(store: Store) -> None:
    queue = store.queue("q", visibility=0.05)
    for i in range(2000):
        queue.put(b"%d" % i)
        message = take(queue)
        message.ack() if i % 2 else message.nack()
        if not i % 2:
            again = take(queue)
            assert again.deliveries == 2
            again.ack()
    after(0.05)
    assert queue.get(timeout=0) is None
    assert queue.counts() == Counts(0, 0, 0, 0, 2000)


def test_extend(store: Store) -> None:
    queue = store.queue("q", visibility=0.15)
    queue.put(b"x")
    message = take(queue)
    for _ in range(6):
        time.sleep(0.05)
        message.extend(0.5)
        assert queue.get(timeout=0) is None
    begin = time.monotonic()
    message.extend(0.05)  # sooner
    again = queue.get(timeout=30)
    assert again is not None
    assert time.monotonic() - begin >= 0.05
    with pytest.raises(celeriac.NotOwner):
        message.extend(1)
    again.extend(1000)
    again.ack()
    with pytest.raises(celeriac.NotOwner, match="acknowledged it already"):
        again.extend(1)


def test_extend_without_visibility(queue: Queue) -> None:
    queue.put(b"x")
    take(queue).extend(0.05)
    again = queue.get(timeout=30)
    assert again is not None
    assert queue.get(timeout=0.1) is None
    again.ack()


def test_a_stopped_worker(store: Store, python: Callable[[str], subprocess.Popen[str]]) -> None:
    queue = store.queue("q", visibility=0.2)
    queue.put(b"x")
    process = python("""
m = store.queue("q").get()
print("has it", flush=True)
sys.stdin.readline()
try:
    m.ack()
except celeriac.NotOwner:
    print("too late", flush=True)
time.sleep(100)
""")
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "has it\n"
    os.kill(process.pid, signal.SIGSTOP)
    message = queue.get(timeout=30)
    os.kill(process.pid, signal.SIGCONT)
    assert message is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "too late\n"
    message.ack()
    assert queue.counts() == Counts(0, 0, 0, 0, 1)


def test_too_often_is_dead(store: Store) -> None:
    queue = store.queue("q", visibility=0.02, max_deliveries=2)
    queue.put(b"x")
    take(queue)
    assert queue.get(timeout=30) is not None
    after(0.05)
    assert queue.get(timeout=0) is None
    (dead,) = queue.dead()
    assert dead.reason == "max_deliveries=2 reached; last owner kept it beyond visibility"


def test_others_are_delivered_meanwhile(store: Store) -> None:
    queue = store.queue("q", visibility=30)
    queue.put_many([b"%d" % i for i in range(500)])
    held = queue.get_many(250)
    assert len(bodies(queue)) == 250
    for message in held:
        message.ack()
    assert queue.counts() == Counts(0, 0, 0, 0, 500)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("5", TypeError),
        (True, TypeError),
        (0, celeriac.ConfigurationError),
        (-1, celeriac.ConfigurationError),
        (float("nan"), ValueError),
    ],
)
def test_wrong(store: Store, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="visibility"):
        store.queue("q", visibility=value)
    assert store.queues() == []


@pytest.mark.parametrize(
    ("value", "error"), [("5", TypeError), (None, TypeError), (-1, ValueError)]
)
def test_wrong_extension(queue: Queue, value: Any, error: type[Exception]) -> None:
    queue.put(b"x")
    message = take(queue)
    with pytest.raises(error, match="seconds"):
        message.extend(value)
    message.ack()
