"""Messages that are done or dead are kept, by count and age, as long as there is room."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from queue_calls import after, bodies, take

import celeriac
from celeriac import Counts, Queue, Store


def finish(queue: Queue, names: range, headers: Any = None) -> None:
    """Puts and acknowledges messages."""
    for i in names:
        queue.put(b"%d" % i, headers=headers)
        take(queue).ack()


def kill(queue: Queue, names: range) -> None:
    """Makes messages dead."""
    for i in names:
        queue.put(b"%d" % i)
        take(queue).nack(reason="why")


def numbers(found: list[Any]) -> list[int]:
    """Their bodies."""
    return [int(e.body) for e in found]


def test_none_are_kept_unless_told(queue: Queue) -> None:
    finish(queue, range(5))
    assert queue.done() == []
    assert queue.counts() == Counts(0, 0, 0, 0, 5)


def test_the_last_are_kept(store: Store) -> None:
    queue = store.queue("q", keep_done=(10, None))
    finish(queue, range(7), {"h": 1})
    assert numbers(queue.done()) == list(range(7))
    finish(queue, range(7, 25))
    assert numbers(queue.done()) == list(range(15, 25))
    assert numbers(queue.done(3)) == [15, 16, 17]
    assert queue.counts() == Counts(0, 0, 0, 0, 25)
    last = queue.done()[-1]
    assert (last.deliveries, last.priority, last.headers, last.reason) == (1, 0, {}, "")
    assert abs(time.time() - last.when) < 20


def test_kept_as_long_as_told(store: Store) -> None:
    queue = store.queue("q", keep_done=(None, 0.05), keep_failed=(None, 0.05), max_deliveries=1)
    finish(queue, range(5))
    kill(queue, range(5))
    after(0.05)
    assert queue.done() == []
    assert queue.dead() == []
    assert queue.counts() == Counts(0, 0, 0, 0, 5)


def test_the_last_dead_are_kept(store: Store) -> None:
    queue = store.queue("q", keep_failed=(10, 3600), max_deliveries=1)
    kill(queue, range(25))
    assert numbers(queue.dead()) == list(range(15, 25))
    assert queue.counts() == Counts(0, 0, 0, 10, 0)
    assert queue.retry_dead() == 10
    assert sorted(map(int, bodies(queue))) == list(range(15, 25))


def test_kept_ones_are_no_messages_any_more(store: Store) -> None:
    queue = store.queue("q", keep_done=(10, None), max_length=1)
    finish(queue, range(5))
    assert queue.purge() == 0
    assert queue.purge_dead() == 0
    assert queue.retry_dead([e.id for e in queue.done()]) == 0
    assert not any(queue.cancel(e.id) for e in queue.done())
    assert len(queue.done()) == 5
    assert queue.delete() is True
    assert queue.done() == []


def test_options_that_change(store: Store) -> None:
    queue = store.queue("q", keep_done=(10, None))
    finish(queue, range(10))
    store.queue("q", keep_done=(3, None))
    assert numbers(queue.done()) == [7, 8, 9]
    store.queue("q", max_length=100)
    assert queue.done() == []
    finish(queue, range(3))
    assert queue.done() == []


def test_an_ack_of_a_kept_one(store: Store) -> None:
    queue = store.queue("q", keep_done=(10, None))
    queue.put(b"x")
    message = take(queue)
    message.ack()
    with pytest.raises(celeriac.NotOwner, match="acknowledged it already"):
        message.ack()
    with pytest.raises(celeriac.NotOwner):
        message.nack()
    assert len(queue.done()) == 1


@pytest.mark.parametrize("kind", ["done", "dead"])
def test_they_give_way(memory: Callable[[str], Store], kind: str) -> None:
    store = memory("8M")
    queue = store.queue("q", keep_done=(10_000, None), keep_failed=(10_000, None), max_deliveries=1)
    body = b"x" * 50_000
    for _ in range(100):
        queue.put(body)
        message = take(queue)
        message.ack() if kind == "done" else message.nack()
    kept = getattr(queue, kind)()
    assert len(kept) > 80
    other = store.queue("other")
    for _ in range(100):
        other.put(body)
    left = getattr(queue, kind)()
    assert left == kept[len(kept) - len(left) :] or not left
    assert len(left) < len(kept)
    assert other.counts().ready == 100


def test_dead_ones_stay_unless_told(memory: Callable[[str], Store]) -> None:
    store = memory("8M")
    queue = store.queue("q", max_deliveries=1)
    body = b"x" * 50_000
    for _ in range(50):
        queue.put(body)
        take(queue).nack()
    with pytest.raises(celeriac.QueueFull):
        queue.put_many([body] * 1000)
    assert queue.counts().dead == 50
    assert all(d.body == body for d in queue.dead())


def test_kept_after_a_death(store: Store, python: Callable[[str], Any]) -> None:
    queue = store.queue("q", keep_done=(100, None), keep_failed=(100, None), max_deliveries=1)
    finish(queue, range(5))
    process = python("""
q = store.queue("q")
for i in range(5, 10):
    q.put(str(i))
    q.get().ack()
    q.put(str(i))
    q.get().nack()
print("done", flush=True)
time.sleep(100)
""")
    assert process.stdout.readline() == "done\n"
    process.kill()
    process.wait()
    store.recover()
    assert numbers(queue.done()) == list(range(10))
    assert numbers(queue.dead()) == list(range(5, 10))
    finish(queue, range(10, 15))
    assert numbers(queue.done()) == list(range(15))


@pytest.mark.parametrize("option", ["keep_done", "keep_failed"])
@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        (5, TypeError, "is a pair"),
        ((1, 2, 3), TypeError, "is a pair"),
        (("1", None), TypeError, r"\[0\] is an int or None, not str"),
        ((1, "x"), TypeError, r"\[1\] is a number of seconds or None, not str"),
        ((0, 5), celeriac.ConfigurationError, r"\[0\]=0: at least 1"),
        ((5, 0), celeriac.ConfigurationError, r"\[1\]=0: seconds above zero"),
        ((5, float("inf")), celeriac.ConfigurationError, r"\[1\]=inf: seconds above zero"),
        ((None, None), celeriac.ConfigurationError, "one of the two"),
    ],
)
def test_wrong(store: Store, option: str, value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        store.queue("q", **{option: value})
    assert store.queues() == []
