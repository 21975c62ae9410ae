"""Random sequences of calls, against models of a dict and of a list of messages."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import celeriac
from celeriac import Cache, Message, Queue, Store

KEYS = st.sampled_from(["", "a", "b", "c", "ü", "x" * 300, b"\xff"])
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.text(st.characters(), max_size=30)
    | st.binary(max_size=30)
    | st.floats(allow_nan=False)
    | st.lists(st.integers(), max_size=5)
    | st.sampled_from([1024, 5000, 100_000]).map(bytes)
)
LIVING = st.sampled_from([None, 1000, 50.5])
TTLS = LIVING | st.sampled_from([0, -1])

SETTINGS = settings(
    max_examples=50,
    database=None,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def same(a: object, b: object) -> bool:
    return a == b and type(a) is type(b)


class CacheMachine(RuleBasedStateMachine):
    """A cache that never has to evict is a dict whose keys are there until they expire."""

    def __init__(self, cache: Cache) -> None:
        super().__init__()
        self.cache = cache
        self.model: dict[str | bytes, tuple[Any, float | None]] = {}
        cache.clear()

    def keep(self, key: str | bytes, value: Any, ttl: float | None) -> None:
        if ttl is not None and ttl <= 0:
            self.model.pop(key, None)
        else:
            self.model[key] = (value, ttl)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def set(self, key: str | bytes, value: Any, ttl: float | None) -> None:
        self.cache.set(key, value, ttl)
        self.keep(key, value, ttl)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def add(self, key: str | bytes, value: Any, ttl: float | None) -> None:
        assert self.cache.add(key, value, ttl) is (key not in self.model)
        if key not in self.model:
            self.keep(key, value, ttl)

    @rule(key=KEYS, value=VALUES, ttl=TTLS)
    def replace(self, key: str | bytes, value: Any, ttl: float | None) -> None:
        assert self.cache.replace(key, value, ttl) is (key in self.model)
        if key in self.model:
            self.keep(key, value, ttl)

    @rule(key=KEYS)
    def delete(self, key: str | bytes) -> None:
        assert self.cache.delete(key) is (self.model.pop(key, None) is not None)

    @rule(key=KEYS, ttl=TTLS)
    def touch(self, key: str | bytes, ttl: float | None) -> None:
        assert self.cache.touch(key, ttl) is (key in self.model)
        if key in self.model:
            self.keep(key, self.model[key][0], ttl)

    @rule(key=KEYS)
    def persist(self, key: str | bytes) -> None:
        assert self.cache.persist(key) is (key in self.model)
        if key in self.model:
            self.keep(key, self.model[key][0], None)

    @rule(key=KEYS, delta=st.integers() | st.integers(-(2**70), 2**70))
    def incr(self, key: str | bytes, delta: int) -> None:
        if key not in self.model:
            with pytest.raises(ValueError, match="not found"):
                self.cache.incr(key, delta)
        elif type(self.model[key][0]) is not int:
            with pytest.raises(TypeError, match="not an int"):
                self.cache.incr(key, delta)
        else:
            value, ttl = self.model[key]
            assert self.cache.incr(key, delta) == value + delta
            self.model[key] = (value + delta, ttl)

    @rule(items=st.dictionaries(KEYS, VALUES, max_size=5), ttl=TTLS)
    def set_many(self, items: dict[str | bytes, Any], ttl: float | None) -> None:
        assert self.cache.set_many(items, ttl) == []
        for key, value in items.items():
            self.keep(key, value, ttl)

    @rule(keys=st.sets(KEYS))
    def delete_many(self, keys: set[str | bytes]) -> None:
        there = sum(self.model.pop(key, None) is not None for key in keys)
        assert self.cache.delete_many(keys) == there

    @rule(key=KEYS)
    def get(self, key: str | bytes) -> None:
        assert same(self.cache.get(key, "missing"), self.model.get(key, ("missing",))[0])
        assert (key in self.cache) is (key in self.model)

    @rule(key=KEYS)
    def ttl(self, key: str | bytes) -> None:
        if key not in self.model:
            with pytest.raises(KeyError):
                self.cache.ttl(key)
            return
        left, given = self.cache.ttl(key), self.model[key][1]
        if given is None:
            assert left is None
        else:
            assert left is not None
            assert given - 40 < left <= given

    @rule()
    def clear(self) -> None:
        self.cache.clear()
        self.model.clear()

    @invariant()
    def all_the_same(self) -> None:
        found = self.cache.get_many(["", "a", "b", "c", "ü", "x" * 300, b"\xff", "nobody's"])
        assert found.keys() == self.model.keys()
        assert all(same(value, self.model[key][0]) for key, value in found.items())
        assert len(self.cache) == len(self.model)


@pytest.mark.parametrize("kind", ["cache", "table"])
def test_cache_is_a_dict_that_expires(store: Store, kind: str) -> None:
    cache = store.cache() if kind == "cache" else store.table("t")
    run_state_machine_as_test(lambda: CacheMachine(cache), settings=SETTINGS)


class QueueMachine(RuleBasedStateMachine):
    """A queue delivers the oldest of the highest priority; what was given back may go before."""

    LIMIT = 3  # deliveries
    LENGTH = 12

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.queue = queue
        queue.delete()
        self.bodies: dict[str, tuple[bytes, int, dict[str, Any]]] = {}
        self.deliveries: dict[str, int] = {}
        self.ready: list[str] = []  # oldest first
        self.free: set[str] = set()  # of the ready, those that were delayed or given back
        self.due: set[str] = set()  # of these, those that nobody may have noticed yet
        self.delayed: set[str] = set()
        self.dead: set[str] = set()
        self.reserved: list[Message] = []
        self.done = 0

    def length(self) -> int:
        return len(self.ready) + len(self.delayed) + len(self.reserved)

    @rule(
        body=st.binary(max_size=20) | st.just(5000).map(bytes),
        priority=st.sampled_from([0, 0, 0, 1, 9, 255]),
        delay=st.sampled_from([0, 0, 0, 0.001, 1000]),
        headers=st.sampled_from([{}, {"a": 1}]),
    )
    def put(self, body: bytes, priority: int, delay: float, headers: dict[str, Any]) -> None:
        if self.length() >= self.LENGTH:
            with pytest.raises(celeriac.QueueFull):
                self.queue.put(body, priority=priority, delay=delay, headers=headers)
            return
        number = self.queue.put(body, priority=priority, delay=delay, headers=headers)
        assert number not in self.bodies
        self.bodies[number] = (body, priority, headers)
        self.deliveries[number] = 0
        if delay == 1000:
            self.delayed.add(number)
            return
        self.ready.append(number)
        if delay:
            self.free.add(number)
            self.due.add(number)
            time.sleep(0.002)

    @precondition(lambda self: all(self.bodies[n][1] < 255 for n in self.ready))
    @rule()
    def put_what_expires(self) -> None:
        if self.length() < self.LENGTH:
            self.queue.put(b"never seen", ttl=0, priority=255)
            self.get()

    @rule()
    def get(self) -> None:
        message = self.queue.get(timeout=0)
        self.due.clear()
        if message is None:
            assert not self.ready
            return
        number = message.id
        assert number in self.ready
        body, priority, headers = self.bodies[number]
        assert (message.body, message.priority, message.headers) == (body, priority, headers)
        assert priority == max(self.bodies[n][1] for n in self.ready)
        if number not in self.free:
            peers = [n for n in self.ready if self.bodies[n][1] == priority]
            assert number == next(n for n in peers if n not in self.free)
        self.deliveries[number] += 1
        assert message.deliveries == self.deliveries[number]
        assert message.redelivered is (self.deliveries[number] > 1)
        self.ready.remove(number)
        self.free.discard(number)
        self.reserved.append(message)

    @precondition(lambda self: self.reserved)
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        message = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        message.ack()
        self.done += 1
        for late in (message.ack, message.nack):
            with pytest.raises(celeriac.NotOwner):
                late()

    @precondition(lambda self: self.reserved)
    @rule(data=st.data(), delay=st.sampled_from([0, 0, 0.001, 1000]))
    def nack(self, data: st.DataObject, delay: float) -> None:
        message = self.reserved.pop(data.draw(st.integers(0, len(self.reserved) - 1)))
        message.nack(delay=delay)
        if message.deliveries >= self.LIMIT:
            self.dead.add(message.id)
        elif delay == 1000:
            self.delayed.add(message.id)
        else:
            self.ready.append(message.id)
            self.free.add(message.id)
            if delay:
                self.due.add(message.id)
                time.sleep(0.002)
        with pytest.raises(celeriac.NotOwner):
            message.ack()

    @rule()
    def purge(self) -> None:
        self.settle()
        assert self.queue.purge() == len(self.ready) + len(self.delayed)
        self.ready.clear()
        self.free.clear()
        self.delayed.clear()

    def settle(self) -> None:
        """Takes what there is and gives it back: all that is due or expired is so now."""
        while self.ready:
            self.get()
        self.get()
        for message in list(self.reserved):
            if message.deliveries < self.LIMIT:
                self.reserved.remove(message)
                message.nack()
                self.ready.append(message.id)
                self.free.add(message.id)

    @rule()
    def look(self) -> None:
        self.settle()
        assert {p.id for p in self.queue.ready()} == set(self.ready)
        assert {p.id for p in self.queue.delayed()} == self.delayed
        assert {p.id for p in self.queue.dead()} == self.dead
        for peeked in self.queue.dead():
            body, priority, headers = self.bodies[peeked.id]
            assert peeked[1:5] == (body, headers, priority, self.deliveries[peeked.id])

    @invariant()
    def counted(self) -> None:
        counts = self.queue.counts()
        ready, delayed = len(self.ready), len(self.delayed)
        assert ready - len(self.due) <= counts.ready <= ready
        assert counts.ready + counts.delayed == ready + delayed
        assert counts[2:] == (len(self.reserved), len(self.dead), self.done)

    def teardown(self) -> None:
        self.queue.delete()


def test_queue_is_a_list_of_messages(store: Store) -> None:
    queue = store.queue("q", max_length=QueueMachine.LENGTH, max_deliveries=QueueMachine.LIMIT)
    run_state_machine_as_test(lambda: QueueMachine(queue), settings=SETTINGS)
