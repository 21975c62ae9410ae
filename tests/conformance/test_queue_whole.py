"""Queues as a whole: limits, dead messages, purge and delete, names, those bound to an owner."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from queue_calls import FAR, bodies, take

import celeriac
from celeriac import Counts, Queue, Store

# ------------------------------------------------------------------ max_length


def test_full(store: Store) -> None:
    queue = store.queue("q", max_length=3)
    queue.put(b"1")
    queue.put(b"2", delay=FAR)
    queue.put(b"3", priority=9)
    for options in ({}, {"priority": 255}, {"delay": 5}, {"ttl": 1}):
        with pytest.raises(celeriac.QueueFull, match="max_length of 3"):
            queue.put(b"4", **options)
    assert queue.counts() == Counts(ready=2, delayed=1, reserved=0, dead=0, done=0)


def test_reserved_messages_count(store: Store) -> None:
    queue = store.queue("q", max_length=2)
    queue.put_many([b"1", b"2"])
    first, second = queue.get_many(2)
    with pytest.raises(celeriac.QueueFull):
        queue.put(b"3")
    second.nack()
    with pytest.raises(celeriac.QueueFull):
        queue.put(b"3")
    first.ack()
    queue.put(b"3")
    assert bodies(queue) == [b"2", b"3"]


@pytest.mark.parametrize("how", ["ack", "purge", "expire", "dead"])
def test_room_again(store: Store, how: str) -> None:
    queue = store.queue("q", max_length=2, max_deliveries=1)
    for _ in range(5):
        queue.put_many([b"1", b"2"], ttl=0.001 if how == "expire" else None)
        with pytest.raises(celeriac.QueueFull):
            queue.put(b"3")
        if how == "ack":
            bodies(queue)
        elif how == "purge":
            queue.purge()
        elif how == "dead":
            for message in queue.get_many(2):
                message.nack()
        else:
            time.sleep(0.01)
            assert queue.get(timeout=0) is None
    queue.put(b"4")
    assert queue.counts().ready == 1


def test_put_many_stops_where_it_is_full(store: Store) -> None:
    queue = store.queue("q", max_length=3)
    with pytest.raises(celeriac.QueueFull):
        queue.put_many([b"1", b"2", b"3", b"4", b"5"])
    assert bodies(queue) == [b"1", b"2", b"3"]


def test_drop_oldest(store: Store) -> None:
    queue = store.queue("q", max_length=3, drop_oldest=True)
    for i in range(10):
        queue.put(b"%d" % i)
        assert queue.counts().ready == min(i + 1, 3)
    assert bodies(queue) == [b"7", b"8", b"9"]
    assert queue.dropped() == 7
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=3)


def test_drop_oldest_takes_no_message_from_a_consumer(store: Store) -> None:
    queue = store.queue("q", max_length=2, drop_oldest=True)
    queue.put_many([b"1", b"2"])
    messages = queue.get_many(2)
    with pytest.raises(celeriac.QueueFull):
        queue.put(b"3")
    for message in messages:
        message.ack()
    assert queue.counts().done == 2


def test_limits_hold_for_every_handle(connect: Callable[..., Store]) -> None:
    connect().queue("q", max_length=1)
    plain = connect().queue("q")
    plain.put(b"1")
    with pytest.raises(celeriac.QueueFull):
        plain.put(b"2")
    connect().queue("q", max_length=2)
    plain.put(b"2")
    with pytest.raises(celeriac.QueueFull):
        plain.put(b"3")


def fill(queue: Queue, size: int, **options: Any) -> tuple[int, str]:
    """Messages put before there was no room, and what was said then."""
    for i in range(100_000):
        try:
            queue.put(b"%06d" % i * (size // 6), **options)
        except celeriac.QueueFull as full:
            return i, str(full)
    pytest.fail("it never was full")


def test_no_memory_for_another_message(memory: Callable[[str], Store]) -> None:
    store = memory("8M")
    queue, cache, table = store.queue("q"), store.cache(), store.table("t")
    cache.set("evicted first", b"x" * 100_000)
    table.set("stays", b"x" * 100_000)
    stored, error = fill(queue, 30_000)
    assert "memory=" in error
    assert 100 < stored < 280
    assert queue.counts().ready == stored
    assert "evicted first" not in cache
    assert "stays" in table
    message = take(queue)
    assert message.body == b"000000" * 5000
    message.ack()
    queue.put(b"%06d" % stored * 5000)
    assert bodies(queue) == [b"%06d" % i * 5000 for i in range(1, stored + 1)]


@pytest.mark.parametrize("delay", [0, FAR])
def test_small_messages_until_memory_is_full(memory: Callable[[str], Store], delay: int) -> None:
    queue = memory("4M").queue("q")
    stored, _ = fill(queue, 6, delay=delay)
    assert stored > 5000
    assert queue.counts()[:2] == ((0, stored) if delay else (stored, 0))
    assert queue.purge() == stored
    assert queue.counts()[:2] == (0, 0)
    queue.put(b"x")
    assert bodies(queue) == [b"x"]


def test_larger_than_memory(memory: Callable[[str], Store]) -> None:
    queue = memory("8M").queue("q")
    queue.put(b"small")
    with pytest.raises(celeriac.ValueTooLarge, match="memory="):
        queue.put(b"x" * (9 << 20))
    with pytest.raises(celeriac.ValueTooLarge):
        queue.put(b"x", headers={"a": "x" * (9 << 20)})
    assert queue.counts() == Counts(ready=1, delayed=0, reserved=0, dead=0, done=0)
    assert bodies(queue) == [b"small"]


@pytest.mark.parametrize("option", ["max_length", "max_deliveries"])
@pytest.mark.parametrize("value", [0, -1])
def test_limits_are_at_least_one(store: Store, option: str, value: int) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=f"{option}={value}.*at least 1"):
        store.queue("q", **{option: value})  # type: ignore[arg-type]
    assert store.has_queue("q") is False


@pytest.mark.parametrize("option", ["max_length", "max_deliveries"])
@pytest.mark.parametrize("value", ["5", 1.5])
def test_limits_are_ints(store: Store, option: str, value: Any) -> None:
    with pytest.raises(TypeError):
        store.queue("q", **{option: value})
    assert store.has_queue("q") is False


# ------------------------------------------------------------------ dead


def test_given_back_too_often_is_dead(store: Store) -> None:
    queue = store.queue("q", max_deliveries=3)
    number = queue.put(b"poison", headers={"h": 1})
    queue.put(b"good")
    for delivery in (1, 2, 3):
        message = take(queue)
        assert (message.body, message.deliveries) == (b"poison", delivery)
        message.nack()
    assert queue.counts() == Counts(ready=1, delayed=0, reserved=0, dead=1, done=0)
    assert bodies(queue) == [b"good"]
    (dead,) = queue.dead()
    assert (dead.id, dead.body, dead.headers, dead.deliveries) == (number, b"poison", {"h": 1}, 3)


def test_given_back_too_often_with_a_delay_is_dead_at_once(store: Store) -> None:
    queue = store.queue("q", max_deliveries=1)
    queue.put(b"poison")
    take(queue).nack(delay=FAR)
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=1, done=0)


def test_the_last_delivery_may_succeed(store: Store) -> None:
    queue = store.queue("q", max_deliveries=2)
    queue.put(b"x")
    take(queue).nack()
    take(queue).ack()
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=1)


# ------------------------------------------------------------------ purge, delete, names


def test_purge(queue: Queue) -> None:
    assert queue.purge() == 0
    queue.put_many([b"x"] * 2500)
    queue.put(b"later", delay=FAR)
    message = take(queue)
    assert queue.purge() == 2500
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=1, dead=0, done=0)
    assert queue.get(timeout=0) is None
    message.ack()
    queue.put(b"new")
    assert bodies(queue) == [b"new"]
    assert queue.counts().done == 2


def test_purge_leaves_other_queues(store: Store) -> None:
    a, b = store.queue("a"), store.queue("b")
    for queue in (a, b):
        queue.put_many([b"1", b"2"])
        queue.put(b"3", delay=FAR)
    assert a.purge() == 3
    assert b.counts() == Counts(ready=2, delayed=1, reserved=0, dead=0, done=0)


def test_delete(store: Store, queue: Queue) -> None:
    queue.put_many([b"x"] * 10)
    queue.put(b"later", delay=FAR)
    acked, given_back, forgotten = queue.get_many(3)
    assert queue.delete() is True
    assert store.has_queue("q") is False
    assert store.queues() == []
    acked.ack()
    given_back.nack()
    assert forgotten.body == b"x"
    assert store.has_queue("q") is False
    assert store.queue("q").counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=0)


def test_delete_of_what_is_not_there(store: Store, queue: Queue) -> None:
    assert queue.delete() is True
    assert queue.delete() is False
    assert store.queue("q").delete() is True


def test_a_deleted_queue_is_made_again_by_use(store: Store, queue: Queue) -> None:
    queue.put(b"old")
    queue.delete()
    queue.put(b"new")
    assert store.has_queue("q") is True
    assert bodies(queue) == [b"new"]


def test_options_come_back_with_the_queue(store: Store) -> None:
    queue = store.queue("q", max_length=1)
    queue.delete()
    queue.put(b"1")
    with pytest.raises(celeriac.QueueFull):
        queue.put(b"2")


def test_queues_that_are_not_made_on_use(store: Store) -> None:
    with pytest.raises(celeriac.StoreNotFound, match='no queue "q"'):
        store.queue("q", create=False)
    assert store.has_queue("q") is False
    owner = store.queue("q")
    queue = store.queue("q", create=False)
    queue.put(b"x")
    owner.delete()
    for call in (
        lambda: queue.put(b"x"),
        lambda: queue.get(timeout=0),
        lambda: queue.get(timeout=1),
        queue.counts,
        queue.purge,
    ):
        with pytest.raises(celeriac.StoreNotFound, match='no queue "q"'):
            call()
    assert store.has_queue("q") is False
    owner.put(b"y")
    assert take(queue).body == b"y"


def test_names(store: Store) -> None:
    assert store.queues() == []
    names = ["a", "b" * 256, "ü", "a b/c:d", "1"]
    for name in names:
        assert store.queue(name).name == name
    assert sorted(store.queues()) == sorted(names)
    assert store.has_queue("a")
    assert not store.has_queue("c")


@pytest.mark.parametrize("name", ["", "x" * 257, "ü" * 129])
def test_other_names(store: Store, name: str) -> None:
    with pytest.raises(celeriac.ConfigurationError, match="256 bytes"):
        store.queue(name)
    assert store.queues() == []


@pytest.mark.parametrize("name", [None, 1, "\ud800"])
def test_what_is_not_a_name(store: Store, name: Any) -> None:
    for make in (store.queue, store.cache, store.table):
        with pytest.raises((TypeError, UnicodeEncodeError)):
            make(name)
    assert store.queues() == []


def test_queues_are_apart(store: Store) -> None:
    queues = [store.queue(f"q{i}") for i in range(50)]
    for i, queue in enumerate(queues):
        queue.put_many([b"%d" % i] * 3)
    for i, queue in enumerate(queues):
        assert bodies(queue) == [b"%d" % i] * 3


def test_queues_come_and_go(store: Store) -> None:
    for i in range(1500):  # more than there can be at a time
        queue = store.queue(f"q{i}")
        queue.put(b"x")
        assert queue.delete() is True
    assert store.queues() == []


# ------------------------------------------------------------------ owner_bound


def test_owner_bound_ends_with_its_process(
    store: Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = python("""
q = store.queue("mine", owner_bound=True)
q.put(b"x")
print("ready", flush=True)
sys.stdin.read()
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert store.has_queue("mine")
    store.queue("mine").put(b"from outside")
    assert store.queue("mine").counts().ready == 2
    process.kill()
    process.wait()
    store.recover()
    assert store.queues() == []


def test_owner_bound_ends_with_its_store(
    store: Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = python("""
store.queue("mine", owner_bound=True).put(b"x")
store.queue("theirs").put(b"y")
store.close()
""")
    assert process.wait(30) == 0
    assert store.queues() == ["theirs"]
    assert bodies(store.queue("theirs")) == [b"y"]


def test_closing_gives_back_what_was_reserved(
    store: Store, queue: Queue, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    queue.put_many([b"1", b"2"])
    process = python("""
q = store.queue("q")
messages = q.get_many(2)
messages[0].ack()
store.close()
time.sleep(30)
""")
    message = None
    while message is None:
        assert process.poll() is None
        if queue.counts().done:
            message = queue.get(timeout=30)
    assert message.body == b"2"
    assert message.deliveries == 2
