"""Queues: what is put is delivered, in order, until it is acknowledged; states are counted."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from queue_calls import FAR, after, bodies, take

import celeriac
from celeriac import Counts, Queue, Store

# ------------------------------------------------------------------ one message


def test_put_get_ack(queue: Queue) -> None:
    assert queue.get(timeout=0) is None
    number = queue.put(b"body", headers={"h": 1})
    assert queue.counts() == Counts(ready=1, delayed=0, reserved=0, dead=0, done=0)
    message = take(queue)
    assert message.body == b"body"
    assert message.headers == {"h": 1}
    assert message.id == number
    assert message.deliveries == 1
    assert message.redelivered is False
    assert message.priority == 0
    assert message.queue is queue
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=1, dead=0, done=0)
    assert queue.get(timeout=0) is None
    assert message.ack() is None
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=1)
    assert queue.get(timeout=0) is None
    assert (message.body, message.headers, message.id) == (b"body", {"h": 1}, number)


def test_nack_gives_back(queue: Queue) -> None:
    number = queue.put(b"body", priority=7, headers={"h": [1]})
    take(queue).nack()
    assert queue.counts() == Counts(ready=1, delayed=0, reserved=0, dead=0, done=0)
    message = take(queue)
    assert (message.body, message.id, message.priority) == (b"body", number, 7)
    assert message.headers == {"h": [1]}
    assert message.deliveries == 2
    assert message.redelivered is True
    message.nack(reason="for people")
    assert take(queue).deliveries == 3


def test_only_one_ack_or_nack_counts(queue: Queue) -> None:
    queue.put(b"a")
    message = take(queue)
    message.ack()
    for late in (message.ack, message.nack, lambda: message.nack(delay=5)):
        with pytest.raises(
            celeriac.NotOwner,
            match=f"message {message.id} of queue 'q' isn't reserved by this process any more: "
            "it acknowledged it already",
        ):
            late()
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=1)


def test_what_was_given_back_is_not_ours(queue: Queue) -> None:
    queue.put(b"a")
    first = take(queue)
    first.nack()
    given_back = r"by this process any more: it gave it back already, with nack\(\)"
    with pytest.raises(celeriac.NotOwner, match=given_back):
        first.ack()
    second = take(queue)
    for late in (first.ack, first.nack):
        with pytest.raises(celeriac.NotOwner, match=given_back):
            late()
    assert queue.counts().reserved == 1
    second.ack()
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=1)


def test_a_message_is_delivered_to_one(connect: Callable[..., Store]) -> None:
    a, b = connect().queue("q"), connect().queue("q")
    a.put(b"1")
    message = take(b)
    assert a.get(timeout=0) is None
    assert a.counts().reserved == 1
    message.ack()
    assert a.counts().done == 1


def test_ids_are_apart(queue: Queue) -> None:
    ids = []
    for _ in range(3):
        ids += queue.put_many([b"x"] * 50)
        bodies(queue)
    assert len(set(ids)) == 150
    assert all(isinstance(i, str) for i in ids)


# ------------------------------------------------------------------ bodies and headers


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000, 4096, 65_536, 1 << 20, 16 << 20])
def test_bodies_of_any_size(queue: Queue, size: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    for _ in range(2):
        queue.put(body, headers={"size": size})
        message = take(queue)
        assert message.body == body
        assert message.headers == {"size": size}
        message.ack()


def test_text_is_utf8(queue: Queue) -> None:
    queue.put("zażółć \U0001f600")
    queue.put("")
    assert bodies(queue) == ["zażółć \U0001f600".encode(), b""]


@pytest.mark.parametrize("body", [None, 1, 1.5, ["x"], bytearray(b"x"), memoryview(b"x")])
def test_other_bodies_are_refused(queue: Queue, body: Any) -> None:
    with pytest.raises(TypeError, match="bytes or str"):
        queue.put(body)
    assert queue.counts().ready == 0


def test_text_that_is_not_unicode_is_refused(queue: Queue) -> None:
    with pytest.raises(UnicodeEncodeError):
        queue.put("\ud800")
    assert queue.counts().ready == 0


@pytest.mark.parametrize(
    "headers",
    [{}, {"a": None, "b": [1, 2.5, {"c": True}], "ü": "\ud800"}, {"long": "x" * 100_000}],
)
def test_headers(queue: Queue, headers: dict[str, Any]) -> None:
    queue.put(b"x", headers=headers)
    assert take(queue).headers == headers


def test_no_headers_are_empty(queue: Queue) -> None:
    queue.put(b"x")
    assert take(queue).headers == {}


@pytest.mark.parametrize("headers", [{"a": object()}, {"a": b"x"}, {(1, 2): 1}])
def test_other_headers_are_refused(queue: Queue, headers: Any) -> None:
    with pytest.raises(TypeError):
        queue.put(b"x", headers=headers)
    assert queue.counts().ready == 0


# ------------------------------------------------------------------ order


def test_first_in_first_out(queue: Queue) -> None:
    put = [b"%d" % i for i in range(100)]
    for body in put:
        queue.put(body)
    assert bodies(queue) == put


def test_first_in_first_out_of_many(queue: Queue) -> None:
    put = [b"%d" % i for i in range(5000)]  # more than any lane or chunk holds
    queue.put_many(put)
    assert queue.counts().ready == 5000
    assert bodies(queue) == put
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=5000)


def test_first_in_first_out_while_it_is_used(queue: Queue) -> None:
    taken, put = [], 0
    for turn in range(400):
        for _ in range(turn % 7):
            queue.put(b"%d" % put)
            put += 1
        for _ in range(turn % 5):
            message = queue.get(timeout=0)
            if message is not None:
                taken.append(int(message.body))
                message.ack()
    taken += [int(body) for body in bodies(queue)]
    assert taken == list(range(put))


def test_higher_priority_first(queue: Queue) -> None:
    for priority in (0, 5, 255, 5, 1, 0, 255, 128):
        queue.put(b"%d" % priority, priority=priority)
    assert bodies(queue) == [b"255", b"255", b"128", b"5", b"5", b"1", b"0", b"0"]


def test_order_within_each_priority(queue: Queue) -> None:
    for i in range(3000):
        queue.put(b"%d" % i, priority=i % 3)
    assert [int(body) for body in bodies(queue)] == [
        i for priority in (2, 1, 0) for i in range(3000) if i % 3 == priority
    ]


def test_all_priorities(queue: Queue) -> None:
    for priority in range(256):
        queue.put(b"%d" % priority, priority=priority)
    assert [int(body) for body in bodies(queue)] == list(range(255, -1, -1))


@pytest.mark.parametrize("priority", [-1, 256, 10**9])
def test_other_priorities(queue: Queue, priority: int) -> None:
    with pytest.raises(ValueError, match="0 to 255"):
        queue.put(b"x", priority=priority)
    assert queue.counts().ready == 0


@pytest.mark.parametrize("priority", [1.5, "1", None])
def test_what_is_not_a_priority(queue: Queue, priority: Any) -> None:
    with pytest.raises(TypeError):
        queue.put(b"x", priority=priority)
    assert queue.counts().ready == 0


def test_what_was_given_back_goes_first(queue: Queue) -> None:
    queue.put_many([b"1", b"2", b"3"])
    take(queue).nack()
    assert bodies(queue) == [b"1", b"2", b"3"]


def test_many_reserved_and_given_back(queue: Queue) -> None:
    put = [b"%d" % i for i in range(2000)]
    queue.put_many(put)
    messages = queue.get_many(2000)
    assert [m.body for m in messages] == put
    for message in messages:
        message.nack()
    assert queue.counts() == Counts(ready=2000, delayed=0, reserved=0, dead=0, done=0)
    assert sorted(bodies(queue), key=int) == put


# ------------------------------------------------------------------ many


def test_put_many_and_get_many(queue: Queue) -> None:
    ids = queue.put_many((b"%d" % i for i in range(5)), priority=3, headers={"a": 1})
    messages = queue.get_many(3)
    assert [m.body for m in messages] == [b"0", b"1", b"2"]
    assert [m.id for m in messages] == ids[:3]
    assert {m.priority for m in messages} == {3}
    assert [m.headers for m in messages] == [{"a": 1}] * 3
    assert queue.counts() == Counts(ready=2, delayed=0, reserved=3, dead=0, done=0)
    assert [m.body for m in queue.get_many(10)] == [b"3", b"4"]
    assert queue.get_many(10) == []
    assert queue.put_many([]) == []


def test_get_many_of_none(queue: Queue) -> None:
    queue.put(b"x")
    assert queue.get_many(0) == []
    assert queue.get_many(-1) == []
    assert queue.counts().ready == 1


def test_get_many_waits_for_the_first_only(queue: Queue) -> None:
    queue.put_many([b"1", b"2"])
    begin = time.monotonic()
    assert len(queue.get_many(5, timeout=30)) == 2
    assert time.monotonic() - begin < 20
    begin = time.monotonic()
    assert queue.get_many(5, timeout=0.05) == []
    assert time.monotonic() - begin >= 0.05


# ------------------------------------------------------------------ waiting


def test_get_waits_as_long_as_it_was_told(queue: Queue) -> None:
    begin = time.monotonic()
    assert queue.get(timeout=0.1) is None
    assert time.monotonic() - begin >= 0.1
    queue.put(b"x")
    for timeout in (0, 5, None, -1, 0.5):
        message = queue.get(timeout=timeout)
        assert message is not None
        message.nack()


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5, False])
def test_zero_or_less_does_not_wait(queue: Queue, timeout: Any) -> None:
    assert queue.get(timeout=timeout) is None


@pytest.mark.parametrize("timeout", ["1", [], b"1"])
def test_what_is_not_a_timeout(queue: Queue, timeout: Any) -> None:
    queue.put(b"x")
    with pytest.raises(TypeError):
        queue.get(timeout=timeout)
    assert queue.counts().ready == 1


# ------------------------------------------------------------------ delay


def test_delayed_until_due(queue: Queue) -> None:
    begin = time.monotonic()
    queue.put(b"later", delay=2)
    queue.put(b"now")
    assert queue.counts() == Counts(ready=1, delayed=1, reserved=0, dead=0, done=0)
    assert bodies(queue) == [b"now"]
    message = queue.get(timeout=30)
    assert message is not None
    assert message.body == b"later"
    assert message.deliveries == 1
    assert time.monotonic() - begin >= 2
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=1, dead=0, done=1)


def test_delayed_come_in_the_order_of_their_time(queue: Queue) -> None:
    delays = [0.09, 0.03, 0.06, 0.0, 0.12]
    due = {}
    for delay in delays:
        before = time.monotonic()
        queue.put(str(delay), delay=delay)
        due[delay] = (before + delay, time.monotonic() + delay)  # between these two moments
    taken = []
    for _ in delays:
        message = queue.get(timeout=30)
        assert message is not None
        taken.append(float(message.body))
    assert sorted(taken) == sorted(delays)
    assert all(due[a][0] <= due[b][1] for a, b in itertools.pairwise(taken)), taken


def test_delayed_with_priority(queue: Queue) -> None:
    queue.put(b"low", delay=0.02)
    queue.put(b"high", delay=0.03, priority=9)
    after(0.03)
    assert bodies(queue) == [b"high", b"low"]


def test_many_delayed(queue: Queue) -> None:
    for i in range(2000):
        queue.put(b"%d" % i, delay=0.02 if i % 2 else FAR)
    after(0.02)
    assert sorted(map(int, bodies(queue))) == list(range(1, 2000, 2))
    assert queue.counts() == Counts(ready=0, delayed=1000, reserved=0, dead=0, done=1000)


def test_nack_with_delay(queue: Queue) -> None:
    queue.put(b"a")
    begin = time.monotonic()
    take(queue).nack(delay=2)
    assert queue.counts() == Counts(ready=0, delayed=1, reserved=0, dead=0, done=0)
    assert queue.get(timeout=0) is None
    message = queue.get(timeout=30)
    assert message is not None
    assert time.monotonic() - begin >= 2
    assert (message.body, message.deliveries) == (b"a", 2)


@pytest.mark.parametrize("delay", [0, 0.0, False, Decimal(0)])
def test_no_delay(queue: Queue, delay: Any) -> None:
    queue.put(b"x", delay=delay)
    assert bodies(queue) == [b"x"]


@pytest.mark.parametrize("delay", [-1, float("nan"), float("-inf")])
def test_other_delays(queue: Queue, delay: float) -> None:
    with pytest.raises(ValueError, match="delay="):
        queue.put(b"x", delay=delay)
    queue.put(b"x")
    message = take(queue)
    with pytest.raises(ValueError, match="delay="):
        message.nack(delay=delay)
    message.ack()
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=1)


@pytest.mark.parametrize("delay", [None, [], "soon", "5"])
def test_what_is_not_a_delay(queue: Queue, delay: Any) -> None:
    with pytest.raises(TypeError, match="delay"):
        queue.put(b"x", delay=delay)
    assert queue.counts().delayed == 0


def test_delays_beyond_all_time(queue: Queue) -> None:
    queue.put(b"x", delay=float("inf"))
    queue.put(b"x", delay=1e300)
    assert queue.get(timeout=0) is None
    assert queue.counts().delayed == 2


# ------------------------------------------------------------------ time to live


def test_expired_messages_are_dropped(queue: Queue) -> None:
    queue.put(b"short", ttl=0.02)
    queue.put(b"long", ttl=FAR)
    queue.put(b"for ever", ttl=None)
    queue.put(b"never", ttl=0)
    queue.put(b"nor this", ttl=-1)
    after(0.02)
    assert bodies(queue) == [b"long", b"for ever"]
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=2)
    assert queue.dropped() == 3


def test_a_message_in_hand_does_not_expire(queue: Queue) -> None:
    queue.put(b"x", ttl=0.05)
    message = queue.get(timeout=0)
    after(0.05)
    if message is not None:  # a slow machine may be late
        message.ack()
        assert queue.counts().done == 1


def test_given_back_too_late_is_dropped(queue: Queue) -> None:
    queue.put(b"x", ttl=0.05)
    message = queue.get(timeout=0)
    after(0.05)
    if message is not None:
        message.nack()
        assert queue.get(timeout=0) is None
        assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=0)


def test_expired_while_delayed(queue: Queue) -> None:
    queue.put(b"x", delay=0.03, ttl=0.01)
    after(0.03)
    assert bodies(queue) == []
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=0)


@pytest.mark.parametrize(("ttl", "error"), [(float("nan"), ValueError), ("5", TypeError)])
def test_what_is_not_a_ttl(queue: Queue, ttl: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        queue.put(b"x", ttl=ttl)
    assert queue.counts().ready == 0


# ------------------------------------------------------------------ a look without taking


def test_looking(queue: Queue) -> None:
    ids = queue.put_many([b"1", b"2"], priority=4, headers={"a": 1})
    late = queue.put(b"later", delay=FAR)
    soon = queue.put(b"soon", delay=FAR / 2)
    take(queue)
    (ready,) = queue.ready()
    assert ready[:4] == (ids[1], b"2", {"a": 1}, 4)
    assert [p.id for p in queue.delayed()] == [soon, late]
    assert FAR - 60 < queue.delayed()[1].due_in <= FAR
    assert len(queue.delayed(limit=1)) == 1
    assert queue.dead() == []
    assert queue.counts() == Counts(ready=1, delayed=2, reserved=1, dead=0, done=0)
