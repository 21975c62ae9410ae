"""Processes that are killed: what they held comes back, to whoever waits in whatever way."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import children
import pytest

import celeriac
from celeriac import Store

PATIENCE = 30


def holder(child: Any, store: Store, n: int = 1) -> Any:
    """A process that has reserved messages of the queue."""
    ours, theirs = multiprocessing.Pipe()
    process = child(multiprocessing.get_context("fork"), children.take_and_hold, store, theirs, n)
    assert ours.poll(PATIENCE)
    assert len(ours.recv()) == n
    return process


def test_to_who_asks(store: Store, child: Any) -> None:
    queue = store.queue("q")
    number = queue.put(b"x", priority=3, headers={"h": 1})
    victim = holder(child, store)
    assert queue.get(0) is None
    victim.kill()
    victim.join()
    message = queue.get(0)
    assert message is not None
    assert (message.id, message.body, message.priority) == (number, b"x", 3)
    assert (message.headers, message.deliveries) == ({"h": 1}, 2)


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_to_who_waits_in_another_process(store: Store, child: Any, timeout: float | None) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    victim = holder(child, store)
    ours, theirs = multiprocessing.Pipe()
    child(multiprocessing.get_context("fork"), children.take_and_ack, store, theirs)
    assert ours.poll(PATIENCE)
    assert ours.recv() == "waits"
    time.sleep(0.1)
    victim.kill()
    assert ours.poll(PATIENCE)
    assert ours.recv() == (b"x", 2)


def test_to_who_waits_in_a_thread(store: Store, child: Any) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    victim = holder(child, store)
    threading.Timer(0.1, victim.kill).start()
    message = queue.get()
    assert message is not None
    assert message.deliveries == 2


def test_to_an_event_loop(store: Store, child: Any) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    victim = holder(child, store)
    waiter = store.waiter()
    waiter.watch(queue)
    message = None
    threading.Timer(0.1, victim.kill).start()
    while message is None:
        if waiter.arm():
            assert select.select([waiter.fileno()], [], [], PATIENCE)[0]
            waiter.drain()
        message = queue.get(0)
    assert message.deliveries == 2


def test_to_the_loop_of_a_queue_descriptor(store: Store, child: Any) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    victim = holder(child, store)
    fd = queue.fileno()
    threading.Timer(0.1, victim.kill).start()
    while (message := queue.get(0)) is None:
        assert select.select([fd], [], [], PATIENCE)[0]
    assert message.deliveries == 2


def test_many_messages_of_many_dead(store: Store, child: Any) -> None:
    queue = store.queue("q")
    queue.put_many([b"%d" % i for i in range(400)])
    victims = [holder(child, store, 100) for _ in range(4)]
    assert queue.counts() == (0, 0, 400, 0, 0)
    for victim in victims:
        victim.kill()
    taken = []
    while len(taken) < 400:
        message = queue.get(PATIENCE)
        assert message is not None
        assert message.deliveries == 2
        taken.append(int(message.body))
        message.ack()
    assert sorted(taken) == list(range(400))
    assert queue.counts() == (0, 0, 0, 0, 400)


def test_a_stopped_process_is_not_dead(store: Store, child: Any) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    victim = holder(child, store)
    os.kill(victim.pid, signal.SIGSTOP)
    store.recover()
    assert queue.get(0.2) is None
    assert queue.counts().reserved == 1
    victim.kill()
    message = queue.get(PATIENCE)
    assert message is not None


def test_killed_once_too_often_is_dead(store: Store, child: Any) -> None:
    queue = store.queue("q", max_deliveries=2)
    queue.put(b"poison")
    for _ in range(2):
        victim = holder(child, store)
        victim.kill()
        victim.join()
        store.recover()
    assert queue.get(0) is None
    assert queue.counts() == (0, 0, 0, 1, 0)
    assert [p.body for p in queue.dead()] == [b"poison"]


def test_the_last_of_all_dies(url: str, child: Any) -> None:
    """Nobody is left to notice: who comes next does."""
    with celeriac.connect(url) as store:
        store.queue("q").put(b"x")
        victim = holder(child, store)
    victim.kill()
    victim.join()
    with celeriac.connect(url) as store:
        message = store.queue("q").get(0)
        assert message is not None
        assert message.deliveries == 2


def test_the_consumer_that_was_woken_dies(store: Store, child: Any) -> None:
    """A wake-up that went to a process which dies of it is not lost."""
    queue = store.queue("q")
    for _ in range(10):
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        waiting = [child(context, children.take_and_ack, store, theirs) for _ in range(2)]
        for _ in waiting:
            assert ours.poll(PATIENCE)
            assert ours.recv() == "waits"
        time.sleep(0.02)
        queue.put(b"x")
        waiting[0].kill()
        waiting[0].join()
        children.until(lambda: not any(queue.counts()[:3]))
        queue.put(b"y")  # lets the other one go if the killed one had time to finish
        waiting[1].join(PATIENCE)
        assert waiting[1].exitcode == 0
        queue.purge()


def test_killed_while_it_waits(store: Store, child: Any) -> None:
    """Marks of dead sleepers wake nobody else's messages away."""
    queue = store.queue("q")
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    waiting = [child(context, children.take_and_ack, store, theirs) for _ in range(5)]
    for _ in waiting:
        assert ours.poll(PATIENCE)
        assert ours.recv() == "waits"
    time.sleep(0.1)
    for process in waiting[:4]:
        process.kill()
        process.join()
    queue.put(b"x")
    assert ours.poll(PATIENCE)
    assert ours.recv() == (b"x", 1)


def test_killed_in_the_middle_of_anything(
    store: Store, python: Callable[..., subprocess.Popen[str]]
) -> None:
    """Whatever it was at: the store is whole, and what is there is whole."""
    for turn in range(12):
        process = python("""
import random
c, q, t = store.cache(), store.queue("q"), store.table("t")
print("ready", flush=True)
while True:
    n = random.choice([10, 1000, 100_000])
    c.set(f"k{random.randrange(50)}", bytes([n % 251]) * n)
    q.put(bytes([n % 251]) * n, delay=random.choice([0, 0.001]))
    t.set("t", n)
    c.delete(f"k{random.randrange(50)}")
    m = q.get(0)
    if m and random.random() < 0.7:
        m.ack()
    elif m:
        m.nack()
""")
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.02 + 0.007 * turn)
        process.kill()
        process.wait()
        store.recover()
        queue = store.queue("q")
        held = store.cache().get_many(f"k{i}" for i in range(50))
        assert all(len(set(value)) == 1 for value in held.values())
        time.sleep(0.002)
        counts = queue.counts()
        assert counts.reserved == 0
        taken = 0
        while (message := queue.get(0)) is not None:
            assert len(set(message.body)) == 1
            message.ack()
            taken += 1
        assert taken == counts.ready + counts.delayed
        assert queue.counts()[:4] == (0, 0, 0, 0)
    assert store.stats()["corrupt"] == 0


# ------------------------------------------------------------------ who is there


def test_fifty_at_once(url: str, python: Callable[..., subprocess.Popen[str]]) -> None:
    """Fifty processes make or open the store at the same time."""
    code = """
store.cache().add("n", 0)
store.cache().incr("n")
store.queue("q").put(str(os.getpid()))
print("here", flush=True)
sys.stdin.read()
"""
    processes = [python(code) for _ in range(50)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
    store = celeriac.connect(url)
    assert store.cache().get("n") == 50
    there = {o["pid"]: o for o in store.owners()}
    assert {p.pid for p in processes} <= there.keys()
    assert len({o["slot"] for o in there.values()}) == len(there) == 51
    assert {int(m.body) for m in store.queue("q").get_many(60)} == {p.pid for p in processes}
    for process in processes:
        process.kill()
        process.wait()
    assert store.recover() == 50
    assert [o["pid"] for o in store.owners()] == [os.getpid()]


def test_owners(store: Store, python: Callable[..., subprocess.Popen[str]]) -> None:
    process = python('store.cache().get("k"); print("here", flush=True); sys.stdin.read()')
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    (other,) = [o for o in store.owners() if o["pid"] == process.pid]
    assert other["alive"] is True
    assert "python" in other["command"]
    assert abs(other["started"] - time.time()) < 60
    assert store.stats()["owners"] == 2
    process.kill()
    process.wait()
    assert [o["alive"] for o in store.owners() if o["pid"] == process.pid] in ([], [False])
    store.recover()
    assert store.stats()["owners"] == 1


def test_destroy_asks_who_is_there(url: str, python: Callable[..., subprocess.Popen[str]]) -> None:
    store = celeriac.connect(url)
    store.cache().set("k", 1)
    process = python('store.cache().get("k"); print("here", flush=True); sys.stdin.read()')
    assert process.stdout is not None
    assert process.stdout.readline() == "here\n"
    with pytest.raises(celeriac.NotOwner, match=rf"\b{process.pid}\b.*force=True"):
        store.destroy()
    assert store.closed is False
    assert store.cache().get("k") == 1
    process.kill()
    process.wait()
    store.destroy()
    assert store.closed is True
    assert not os.path.exists(store.path)
    with pytest.raises(celeriac.StoreNotFound):
        celeriac.connect(url, create=False)


def test_destroyed_under_others(url: str, python: Callable[..., subprocess.Popen[str]]) -> None:
    process = python("""
q = store.queue("q")
print("waits", flush=True)
try:
    q.get()
except celeriac.StoreNotFound as error:
    print(error, flush=True)
for call in (lambda: q.put(b"x"), lambda: q.get(0), lambda: store.cache().get("k")):
    try:
        call()
    except celeriac.StoreNotFound:
        print("gone", flush=True)
with celeriac.connect(sys.argv[1]) as new:
    sys.stdin.readline()
    print(new.cache().get("k"), flush=True)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    time.sleep(0.1)
    celeriac.connect(url).destroy(force=True)
    with celeriac.connect(url) as new:
        new.cache().set("k", "new")
        assert "destroyed" in process.stdout.readline()
        assert [process.stdout.readline() for _ in range(3)] == ["gone\n"] * 3
        assert process.communicate("go on\n", PATIENCE)[0] == "new\n"
