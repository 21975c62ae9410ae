"""A paused queue takes puts and delivers nothing, to nobody, until it is resumed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

import pytest
from queue_calls import after, bodies, take

import celeriac
from celeriac import Counts, Queue, Store


def test_nothing_is_delivered(queue: Queue, connect: Callable[..., Store]) -> None:
    other = connect().queue("q")
    queue.put(b"1")
    assert queue.paused is False
    queue.pause()
    queue.pause()
    assert (queue.paused, other.paused) == (True, True)
    queue.put(b"2", delay=0.001)
    other.put_many([b"3"])
    after(0.001)
    for handle in (queue, other):
        assert handle.get(timeout=0) is None
        assert handle.get(timeout=0.05) is None
        assert handle.get_many(5) == []
    assert sum(queue.counts()[:2]) == 3
    other.resume()
    assert (queue.paused, other.paused) == (False, False)
    assert sorted(bodies(queue)) == [b"1", b"2", b"3"]


def test_what_is_reserved_may_be_ended(queue: Queue) -> None:
    queue.put_many([b"1", b"2"])
    first, second = queue.get_many(2)
    queue.pause()
    first.ack()
    second.nack()
    assert queue.counts() == Counts(1, 0, 0, 0, 1)
    assert queue.get(timeout=0) is None
    assert [p.body for p in queue.ready()] == [b"2"]
    assert queue.purge() == 1


def test_resume_wakes_all_who_sleep(
    queue: Queue, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    queue.pause()
    code = """
print("waits", flush=True)
print(store.queue("q").get(60).body, flush=True)
time.sleep(100)
"""
    waiting = [python(code), python(code)]
    for process in waiting:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
    time.sleep(0.2)
    queue.put_many([b"1", b"2"])
    time.sleep(0.2)
    assert queue.counts() == Counts(2, 0, 0, 0, 0)
    queue.resume()
    said = [process.stdout.readline() for process in waiting if process.stdout is not None]
    assert sorted(said) == ["b'1'\n", "b'2'\n"]


def test_consumers_sleep_on(queue: Queue, python: Callable[[str], subprocess.Popen[str]]) -> None:
    queue.put_many([b"x"] * 10)
    queue.pause()
    process = python("""
print("waits", flush=True)
store.queue("q").get(1)
t = time.process_time()
store.queue("q").get(2)
print(time.process_time() - t, flush=True)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    end = time.monotonic() + 3
    while time.monotonic() < end and process.poll() is None:
        queue.put(b"y")
        time.sleep(0.001)
    assert float(process.stdout.readline()) < 1  # of the two seconds: it didn't spin


def test_it_lasts(queue: Queue, python: Callable[[str], subprocess.Popen[str]]) -> None:
    assert python('store.queue("q").pause()').wait(30) == 0
    assert queue.paused is True
    assert queue.delete() is True
    queue.put(b"x")
    assert queue.paused is False
    assert take(queue).body == b"x"


def test_drop_oldest_of_a_paused_queue(store: Store) -> None:
    queue = store.queue("q", max_length=2, drop_oldest=True)
    queue.pause()
    for body in (b"1", b"2", b"3"):
        queue.put(body)
    queue.resume()
    assert bodies(queue) == [b"2", b"3"]


def test_an_event_loop_isnt_called(store: Store, queue: Queue) -> None:
    waiter = store.waiter()
    waiter.watch(queue)
    queue.put(b"x")
    assert waiter.arm() is False
    queue.pause()
    assert waiter.arm() is True
    os.set_blocking(waiter.fileno(), False)
    queue.resume()
    assert waiter.arm() is False
    waiter.close()


def test_paused_without_a_queue(store: Store) -> None:
    owner = store.queue("q")
    queue = store.queue("q", create=False)
    owner.delete()
    for call in (queue.pause, queue.resume, lambda: queue.paused):
        with pytest.raises(celeriac.StoreNotFound, match='no queue "q"'):
            call()
