"""Dead messages: why they are, how they come back, and queues that get them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from queue_calls import FAR, after, bodies, take

import celeriac
from celeriac import Counts, Queue, Store

NO_ID = "f" * 16


def kill(queue: Queue, body: bytes, reason: str | None = None) -> str:
    """Makes a message dead, in a queue of one delivery."""
    number = queue.put(body)
    take(queue).nack(reason=reason)
    return number


# ------------------------------------------------------------------ the reason


def test_given_back_with_a_reason(store: Store) -> None:
    queue = store.queue("q", max_deliveries=2)
    before = time.time()
    number = queue.put(b"x", headers={"h": 1}, priority=7)
    take(queue).nack(reason="first")
    take(queue).nack(reason="no such customer: 7")
    (dead,) = queue.dead()
    assert dead.reason == "max_deliveries=2 reached; given back: no such customer: 7"
    assert (dead.id, dead.body, dead.headers, dead.priority, dead.deliveries) == (
        number,
        b"x",
        {"h": 1},
        7,
        2,
    )
    assert before - 0.1 <= dead.when <= time.time() + 0.1


def test_given_back_without(store: Store) -> None:
    queue = store.queue("q", max_deliveries=1)
    kill(queue, b"x")
    assert queue.dead()[0].reason == "max_deliveries=1 reached; given back"


def test_the_last_reason_counts_and_outlives_a_silent_nack(store: Store) -> None:
    queue = store.queue("q", max_deliveries=3)
    queue.put(b"x")
    take(queue).nack(reason="one")
    message = take(queue)
    assert message.reason == "given back: one"
    message.nack(reason="two", delay=0.001)
    message = queue.get(timeout=30)
    assert message is not None
    assert message.reason == "given back: two"
    message.nack()
    assert queue.dead()[0].reason == "max_deliveries=3 reached; given back: two"


def test_the_owner_died(store: Store, python: Callable[[str], subprocess.Popen[str]]) -> None:
    queue = store.queue("q", max_deliveries=1)
    queue.put(b"poison")
    process = python("""
m = store.queue("q").get()
print("has it", flush=True)
time.sleep(100)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    process.kill()
    process.wait()
    assert queue.get(timeout=0) is None
    (dead,) = queue.dead()
    assert dead.reason == "max_deliveries=1 reached; last owner died"


@pytest.mark.parametrize("reason", ["x" * 2000, "ü" * 2000, "\ud800" * 3, "", "zeile\n2"])
def test_reasons_are_bounded(store: Store, reason: str) -> None:
    queue = store.queue("q", max_deliveries=1)
    kill(queue, b"x", reason)
    said = queue.dead()[0].reason.partition("given back")[2].removeprefix(": ")
    assert len(said.encode()) <= 1024
    kept = reason.encode("utf-8", "replace").decode()
    assert kept.startswith(said)
    assert len(said) == min(len(kept), 1024 if reason[:1] == "x" else 512)


def test_reasons_take_no_memory_for_ever(memory: Callable[[str], Store]) -> None:
    store = memory("4M")
    queue = store.queue("q", max_deliveries=3)
    for _ in range(3000):  # their reasons alone are more than there is
        queue.put(b"x")
        take(queue).nack(reason="a" * 1000)
        take(queue).nack(reason="b" * 1000)
        message = take(queue)
        assert message.reason == "given back: " + "b" * 1000
        message.ack()
    for i in range(3000):
        queue.put(b"x")
        for _ in range(3):
            take(queue).nack(reason="c" * 1000)
        assert (queue.retry_dead() if i % 2 else queue.purge_dead()) == 1
        queue.purge()
    assert queue.counts() == Counts(0, 0, 0, 0, 3000)


def test_a_late_nack_says_nothing(store: Store) -> None:
    queue = store.queue("q", max_deliveries=5)
    queue.put(b"x")
    first = take(queue)
    first.nack(reason="mine")
    with pytest.raises(celeriac.NotOwner):
        first.nack(reason="late")
    assert take(queue).reason == "given back: mine"
    assert first.reason is None


def test_what_is_not_a_reason(store: Store) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    with pytest.raises(TypeError, match="reason is a str, not int"):
        take(queue).nack(reason=5)  # type: ignore[arg-type]


# ------------------------------------------------------------------ the list


def test_dead_are_in_the_order_of_their_death(store: Store) -> None:
    queue = store.queue("q", max_deliveries=1)
    queue.put_many([b"1", b"2", b"3"])
    first, second, third = queue.get_many(3)
    second.nack()
    third.nack()
    first.nack()
    assert [d.body for d in queue.dead()] == [b"2", b"3", b"1"]
    assert [d.body for d in queue.dead(limit=2)] == [b"2", b"3"]
    assert queue.dead(0) == []
    moments = [d.when for d in queue.dead()]
    assert moments == sorted(moments)


def test_retry_all(store: Store) -> None:
    queue = store.queue("q", max_deliveries=1)
    ids = [kill(queue, b"%d" % i, "why") for i in range(600)]
    queue.put(b"before")
    assert queue.retry_dead() == 600
    assert queue.counts() == Counts(601, 0, 0, 0, 0)
    assert queue.dead() == []
    assert take(queue).body == b"before"
    messages = queue.get_many(600)
    assert [m.id for m in messages] == ids
    assert [m.body for m in messages] == [b"%d" % i for i in range(600)]
    assert {m.deliveries for m in messages} == {1}
    for message in messages:
        message.nack(reason="again")
    assert queue.counts().dead == 600
    assert queue.retry_dead() == 600
    assert queue.retry_dead() == 0


def test_retry_some(store: Store) -> None:
    queue, other = store.queue("q", max_deliveries=1), store.queue("other", max_deliveries=1)
    a, b, c = (kill(queue, body) for body in (b"a", b"b", b"c"))
    elsewhere = kill(other, b"x")
    alive = queue.put(b"alive", delay=FAR)
    assert queue.retry_dead([b, NO_ID, alive, elsewhere, b]) == 1
    assert [d.id for d in queue.dead()] == [a, c]
    assert queue.retry_dead([]) == 0
    assert queue.retry_dead(i for i in (c, a)) == 2
    assert bodies(queue) == [b"b", b"c", b"a"]
    assert other.counts().dead == 1


def test_an_expired_ttl_is_forgotten(store: Store) -> None:
    queue = store.queue("q", max_deliveries=1)
    queue.put(b"x", ttl=0.05)
    message = queue.get(timeout=0)
    after(0.05)
    if message is not None:  # a slow machine may be late
        message.nack()
        assert queue.retry_dead() == 1
        assert bodies(queue) == [b"x"]


def test_retried_ones_may_be_more_than_max_length(store: Store) -> None:
    queue = store.queue("q", max_length=2, max_deliveries=1)
    kill(queue, b"1")
    queue.put_many([b"2", b"3"])
    assert queue.retry_dead() == 1
    with pytest.raises(celeriac.QueueFull):
        queue.put(b"4")
    assert bodies(queue) == [b"2", b"3", b"1"]


def test_retry_wakes(store: Store, python: Callable[[str], subprocess.Popen[str]]) -> None:
    queue = store.queue("q", max_deliveries=1)
    kill(queue, b"x")
    process = python("""
print("waits", flush=True)
print(store.queue("q").get(30).body, flush=True)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    time.sleep(0.2)
    assert queue.retry_dead() == 1
    assert process.stdout.readline() == "b'x'\n"


def test_purge_dead(store: Store) -> None:
    queue = store.queue("q", max_deliveries=1)
    for i in range(600):
        kill(queue, b"%d" % i, "why")
    queue.put(b"alive")
    assert queue.purge() == 1
    assert queue.purge_dead() == 600
    assert queue.purge_dead() == 0
    assert queue.counts() == Counts(0, 0, 0, 0, 0)
    assert queue.dead() == []


@pytest.mark.parametrize(
    ("ids", "error", "said"),
    [
        ("0" * 16, TypeError, "ids is an iterable of ids, not str"),
        (5, TypeError, "ids is an iterable of ids, not int"),
        ([5], TypeError, "an id is a str, not int"),
        (["x"], ValueError, "id='x': an id is what put"),
        (["-1"], ValueError, "id='-1': an id is what put"),
        (["1" + "0" * 16], ValueError, "an id is what put"),
    ],
)
def test_what_are_not_ids(store: Store, ids: Any, error: type[Exception], said: str) -> None:
    queue = store.queue("q", max_deliveries=1)
    kill(queue, b"x")
    with pytest.raises(error, match=said):
        queue.retry_dead(ids)
    assert queue.counts().dead == 1


# ------------------------------------------------------------------ dead letter queues


def test_dead_letters_go_to_another_queue(store: Store) -> None:
    queue = store.queue("q", max_deliveries=2, dead_letter="morgue")
    assert store.queues() == ["q"]
    number = queue.put(b"x", headers={"h": 1}, priority=9)
    take(queue).nack()
    take(queue).nack(reason="broken")
    assert queue.counts() == Counts(0, 0, 0, 0, 0)
    assert queue.dead() == []
    morgue = store.queue("morgue")
    assert morgue.counts() == Counts(1, 0, 0, 0, 0)
    message = take(morgue)
    assert (message.id, message.body, message.headers) == (number, b"x", {"h": 1})
    assert (message.priority, message.deliveries) == (9, 1)
    assert message.reason == "max_deliveries=2 reached; given back: broken"
    message.ack()
    assert morgue.counts() == Counts(0, 0, 0, 0, 1)


def test_expired_messages_go_there(store: Store) -> None:
    queue = store.queue("q", dead_letter="morgue")
    queue.put_many([b"1", b"2"], ttl=0.001)
    queue.put(b"3")
    after(0.001)
    assert bodies(queue) == [b"3"]
    assert queue.dropped() == 0
    morgue = store.queue("morgue")
    messages = morgue.get_many(5)
    assert [m.body for m in messages] == [b"1", b"2"]
    assert {m.reason for m in messages} == {"expired: its ttl passed before anybody took it"}


def test_the_dead_owners_go_there(
    store: Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    queue = store.queue("q", max_deliveries=1, dead_letter="morgue")
    queue.put(b"poison")
    process = python("""
m = store.queue("q").get()
print("has it", flush=True)
time.sleep(100)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    process.kill()
    message = store.queue("morgue").get(timeout=30)
    assert message is not None
    assert message.body == b"poison"
    assert message.reason == "max_deliveries=1 reached; last owner died"
    assert queue.counts() == Counts(0, 0, 0, 0, 0)


def test_its_bound_does_not_keep_them_out(store: Store) -> None:
    morgue = store.queue("morgue", max_length=1)
    morgue.put(b"first")
    queue = store.queue("q", max_deliveries=1, dead_letter="morgue", max_length=1)
    for body in (b"1", b"2"):
        kill(queue, body)
    assert bodies(morgue) == [b"first", b"1", b"2"]


def test_a_chain(store: Store) -> None:
    a = store.queue("a", max_deliveries=1, dead_letter="b")
    b = store.queue("b", max_deliveries=2, dead_letter="a")
    a.put(b"x")
    for queue in (a, b, b, a):
        take(queue).nack()
    assert (a.counts().ready, b.counts().ready) == (0, 1)


def test_deleted_and_made_again(store: Store) -> None:
    queue = store.queue("q", max_deliveries=1, dead_letter="morgue")
    kill(queue, b"1")
    assert store.queue("morgue").delete() is True
    kill(queue, b"2")
    assert bodies(store.queue("morgue")) == [b"2"]


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        (5, TypeError, "dead_letter is a str, not int"),
        ("", celeriac.ConfigurationError, "dead_letter=''"),
        ("x" * 257, celeriac.ConfigurationError, "1 to 256 bytes"),
        ("q", celeriac.ConfigurationError, "dead_letter='q': that is this queue itself"),
    ],
)
def test_what_is_not_a_dead_letter_queue(
    store: Store, name: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        store.queue("q", dead_letter=name)
    assert store.queues() == []
