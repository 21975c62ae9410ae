"""Putting into a full queue: at once an error, or after a wait for room."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from queue_calls import FAR, bodies, take

import celeriac
from celeriac import Queue, Store

PATIENCE = 30


def full(store: Store, **options: Any) -> Queue:
    """A queue with one message and no room for another."""
    queue = store.queue("q", max_length=1, **options)
    queue.put(b"first")
    return queue


def test_the_default_fails_at_once(store: Store) -> None:
    queue = full(store)
    begin = time.monotonic()
    for options in ({}, {"timeout": 0}, {"timeout": -1}):
        with pytest.raises(celeriac.QueueFull, match="max_length of 1"):
            queue.put(b"x", **options)
    assert time.monotonic() - begin < 20


def test_the_deadline(store: Store) -> None:
    queue = full(store)
    begin = time.monotonic()
    with pytest.raises(celeriac.QueueFull, match="max_length of 1"):
        queue.put(b"x", timeout=0.1)
    assert time.monotonic() - begin >= 0.1
    with pytest.raises(celeriac.QueueFull):
        queue.put_many([b"x"], timeout=0.05)
    assert bodies(queue) == [b"first"]
    queue.put(b"there is room", timeout=0.1)


ROOM: dict[str, Callable[[Queue], object]] = {
    "ack": lambda q: take(q).ack(),
    "purge": lambda q: q.purge(),
    "delete": lambda q: q.delete(),
    "cancel": lambda q: q.cancel(q.ready()[0].id),
    "dead": lambda q: take(q).nack(),
}


@pytest.mark.parametrize("how", ROOM)
@pytest.mark.parametrize("wait", [PATIENCE, None])
def test_room_wakes(store: Store, how: str, wait: float | None) -> None:
    queue = full(store, max_deliveries=1)
    ended: list[float] = []

    def put() -> None:
        queue.put(b"second", timeout=wait)
        ended.append(time.monotonic())

    thread = threading.Thread(target=put)
    thread.start()
    time.sleep(0.2)
    assert not ended
    ROOM[how](queue)
    thread.join(PATIENCE)
    assert ended
    assert bodies(queue) == [b"second"]


def test_room_made_by_another_process(store: Store, python: Callable[[str], Any]) -> None:
    queue = full(store)
    python('time.sleep(0.2); store.queue("q").get().ack()')
    queue.put(b"second", timeout=PATIENCE)
    assert bodies(queue) == [b"second"]


def test_room_made_by_a_death(store: Store, python: Callable[[str], Any]) -> None:
    """Killed with the message: it is dead then, and doesn't count any more."""
    queue = full(store, max_deliveries=1)
    process = python("""
m = store.queue("q").get()
print("has it", flush=True)
time.sleep(100)
""")
    assert process.stdout.readline() == "has it\n"
    threading.Timer(0.2, process.kill).start()
    queue.put(b"second", timeout=PATIENCE)
    assert bodies(queue) == [b"second"]


def test_many_putters_one_place(store: Store) -> None:
    queue = store.queue("q", max_length=3)
    total = 400
    taken: list[bytes] = []

    def put(name: int) -> None:
        for i in range(total // 4):
            queue.put(b"%d.%d" % (name, i), timeout=PATIENCE)

    putters = [threading.Thread(target=put, args=[i]) for i in range(4)]
    for thread in putters:
        thread.start()
    while len(taken) < total:
        message = queue.get(timeout=PATIENCE)
        assert message is not None
        taken.append(message.body)
        message.ack()
        assert sum(queue.counts()[:3]) <= 3
    for thread in putters:
        thread.join(PATIENCE)
    assert len(set(taken)) == total
    for name in range(4):
        ours = [int(b.split(b".")[1]) for b in taken if b.startswith(b"%d." % name)]
        assert ours == sorted(ours)


def test_put_many_waits(store: Store) -> None:
    queue = full(store)
    ids: list[str] = []
    thread = threading.Thread(
        target=lambda: ids.extend(queue.put_many([b"1", b"2", b"3"], timeout=PATIENCE))
    )
    thread.start()
    got = []
    while len(got) < 4:
        message = queue.get(timeout=PATIENCE)
        assert message is not None
        got.append((message.id, message.body))
        message.ack()
    thread.join(PATIENCE)
    assert [body for _, body in got] == [b"first", b"1", b"2", b"3"]
    assert [number for number, _ in got[1:]] == ids


def test_memory(memory: Callable[[str], Store]) -> None:
    store = memory("8M")
    queue, other = store.queue("q"), store.queue("other")
    body = b"x" * 100_000
    with pytest.raises(celeriac.QueueFull, match="memory"):
        other.put_many([body] * 1000)
    with pytest.raises(celeriac.QueueFull, match="memory"):
        queue.put(body, timeout=0.05)
    threading.Timer(0.2, lambda: take(other).ack()).start()
    queue.put(body, timeout=PATIENCE)
    threading.Timer(0.2, other.purge).start()
    queue.put_many([body] * 3, timeout=PATIENCE)
    assert queue.counts().ready == 4


def test_memory_of_a_table(memory: Callable[[str], Store]) -> None:
    store = memory("8M")
    queue, table = store.queue("q"), store.table("t")
    table.set("large", b"x" * 3_000_000)
    with pytest.raises(celeriac.QueueFull, match="memory"):
        queue.put_many([b"x" * 100_000] * 1000)
    threading.Timer(0.2, lambda: table.delete("large")).start()
    queue.put(b"x" * 100_000, timeout=PATIENCE)


def test_closing_ends_the_wait(connect: Callable[..., Store]) -> None:
    full(connect())
    store = connect()
    queue = store.queue("q")
    threading.Timer(0.2, store.close).start()
    with pytest.raises(celeriac.ConfigurationError, match="closed"):
        queue.put(b"x", timeout=PATIENCE)


@pytest.mark.parametrize("options", [{}, {"delay": FAR}, {"priority": 5}, {"dedup_key": "k"}])
def test_with_other_options(store: Store, options: dict[str, Any]) -> None:
    queue = full(store)
    with pytest.raises(celeriac.QueueFull):
        queue.put(b"x", timeout=0.01, **options)
    take(queue).ack()
    queue.put(b"x", timeout=0.01, **options)
    assert sum(queue.counts()[:2]) == 1
