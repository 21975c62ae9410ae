"""Many messages with one call: in order, and when one can't be put, it is told which were."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from queue_calls import bodies, take

import celeriac
from celeriac import Counts, Queue, Store


def test_thousands(queue: Queue) -> None:
    put = [b"%d" % i for i in range(3000)]
    ids = queue.put_many(put, priority=2, headers={"h": 1})
    assert len(set(ids)) == 3000
    messages = queue.get_many(3000)
    assert [m.body for m in messages] == put
    assert [m.id for m in messages] == ids
    assert {(m.priority, m.headers["h"], m.deliveries) for m in messages} == {(2, 1, 1)}
    for message in messages:
        message.ack()
    assert queue.counts() == Counts(0, 0, 0, 0, 3000)


def test_text_and_bytes_mixed(queue: Queue) -> None:
    queue.put_many(["ä", b"\xff", ""])
    assert bodies(queue) == ["ä".encode(), b"\xff", b""]


def test_options_are_those_of_put(queue: Queue) -> None:
    queue.put_many([b"1", b"2"], delay=0.02)
    queue.put_many([b"3"], ttl=0)
    assert queue.counts().delayed == 2
    assert queue.get(timeout=0) is None
    assert len(queue.get_many(5, timeout=30)) >= 1


def test_where_it_is_full_the_ids_say(store: Store) -> None:
    queue = store.queue("q", max_length=3)
    first = queue.put(b"0")
    with pytest.raises(celeriac.QueueFull, match="max_length of 3") as full:
        queue.put_many([b"1", b"2", b"3", b"4"])
    assert [m.id for m in queue.get_many(5)] == [first, *full.value.ids]
    assert len(full.value.ids) == 2


def test_too_large_in_the_middle(memory: Callable[[str], Store]) -> None:
    queue = memory("8M").queue("q")
    with pytest.raises(celeriac.ValueTooLarge) as error:
        queue.put_many([b"1", b"x" * (9 << 20), b"3"])
    assert [m.id for m in queue.get_many(5)] == error.value.ids
    assert len(error.value.ids) == 1


def test_a_body_that_is_none_puts_nothing(queue: Queue) -> None:
    with pytest.raises(TypeError, match="not int"):
        queue.put_many([b"1", 5])  # type: ignore[list-item]
    with pytest.raises(UnicodeEncodeError):
        queue.put_many(["1", "\ud800"])
    assert queue.counts().ready == 0


def test_get_many_waits_for_one(queue: Queue, python: Callable[[str], object]) -> None:
    python('time.sleep(0.2); store.queue("q").put_many(["a", "b"])')
    begin = time.monotonic()
    found = queue.get_many(10, timeout=30)
    assert 1 <= len(found) <= 2
    assert time.monotonic() - begin < 25


def test_get_many_leaves_the_rest(queue: Queue) -> None:
    queue.put_many([b"1", b"2", b"3"])
    assert [m.body for m in queue.get_many(2)] == [b"1", b"2"]
    assert take(queue).body == b"3"
