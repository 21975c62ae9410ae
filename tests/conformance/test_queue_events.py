"""Queues: who waits is woken, in blocking calls and in event loops, and by other processes.

Deadlines here are generous: they tell "woken" from "never", not fast from slow.
"""

from __future__ import annotations

import asyncio
import select
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
from queue_calls import FAR, bodies

import celeriac
from celeriac import Counts, Message, Queue, Store, Waiter

PATIENCE = 30


def readable(fd: int, seconds: float) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


class Getter(threading.Thread):
    """Waits for a message in a thread."""

    def __init__(self, queue: Queue, timeout: float | None = PATIENCE) -> None:
        super().__init__(daemon=True)
        self._queue, self._timeout = queue, timeout
        self.message: Message | None = None
        self.start()
        time.sleep(0.05)  # most likely it waits by now; right either way

    def wait(self) -> Message | None:
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.message

    def run(self) -> None:
        self.message = self._queue.get(self._timeout)


# ------------------------------------------------------------------ blocking


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_put_wakes_a_thread(queue: Queue, timeout: float | None) -> None:
    getter = Getter(queue, timeout)
    assert getter.is_alive()
    queue.put(b"x")
    message = getter.wait()
    assert message is not None
    assert message.body == b"x"


def test_put_of_another_process_wakes(
    queue: Queue, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    python('time.sleep(0.2); store.queue("q").put(b"from afar")')
    message = queue.get(timeout=PATIENCE)
    assert message is not None
    assert message.body == b"from afar"


def test_put_wakes_another_process(
    queue: Queue, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = python("""
q = store.queue("q")
print("waits", flush=True)
m = q.get()
m.ack()
print(m.body, flush=True)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    time.sleep(0.1)
    queue.put(b"x")
    assert process.communicate(timeout=PATIENCE)[0] == "b'x'\n"
    assert queue.counts() == Counts(ready=0, delayed=0, reserved=0, dead=0, done=1)


def test_each_waiting_thread_gets_one(queue: Queue) -> None:
    getters = [Getter(queue) for _ in range(5)]
    ids = queue.put_many([b"x"] * 5)
    messages = [getter.wait() for getter in getters]
    assert sorted(m.id for m in messages if m is not None) == sorted(ids)


def test_nack_wakes(queue: Queue) -> None:
    queue.put(b"x")
    held = queue.get(timeout=0)
    assert held is not None
    getter = Getter(queue)
    held.nack()
    message = getter.wait()
    assert message is not None
    assert message.deliveries == 2


def test_a_due_message_wakes(queue: Queue) -> None:
    queue.put(b"far", delay=FAR)
    getter = Getter(queue)
    queue.put(b"near", delay=0.1)  # sooner than what the getter knew of
    message = getter.wait()
    assert message is not None
    assert message.body == b"near"


def test_other_queues_do_not_wake(store: Store, queue: Queue) -> None:
    getter = Getter(queue, 0.3)
    store.queue("other").put(b"x")
    assert getter.wait() is None


def test_delete_leaves_waiting_threads_waiting(queue: Queue) -> None:
    getter = Getter(queue)
    queue.delete()
    queue.put(b"new")
    message = getter.wait()
    assert message is not None
    assert message.body == b"new"


def test_delete_ends_the_wait_for_a_queue_that_is_not_made_on_use(
    store: Store, queue: Queue
) -> None:
    errors: list[Exception] = []

    def run() -> None:
        try:
            store.queue("q", create=False).get()
        except celeriac.StoreNotFound as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.05)
    queue.delete()
    thread.join(PATIENCE)
    assert len(errors) == 1


# ------------------------------------------------------------------ fileno()


def test_descriptor_of_a_queue(queue: Queue) -> None:
    fd = queue.fileno()
    assert queue.fileno() == fd
    assert not readable(fd, 0)
    for turn in range(3):
        queue.put(b"%d" % turn)
        assert readable(fd, PATIENCE)
        assert bodies(queue) == [b"%d" % turn]
        assert not readable(fd, 0.02)


def test_descriptor_of_a_queue_that_has_messages(queue: Queue) -> None:
    queue.put_many([b"1", b"2"])
    assert readable(queue.fileno(), PATIENCE)
    assert bodies(queue) == [b"1", b"2"]
    assert not readable(queue.fileno(), 0.02)
    queue.put(b"3")
    assert readable(queue.fileno(), PATIENCE)


def test_descriptor_tells_of_due_messages(queue: Queue) -> None:
    fd = queue.fileno()
    queue.put(b"x", delay=0.1)
    begin = time.monotonic()
    while not (taken := bodies(queue)):
        assert readable(fd, PATIENCE)
    assert taken == [b"x"]
    assert time.monotonic() - begin >= 0.09


def test_descriptor_tells_of_what_is_given_back(queue: Queue) -> None:
    queue.put(b"x")
    message = queue.get(timeout=0)
    assert message is not None
    fd = queue.fileno()
    assert queue.get(timeout=0) is None
    message.nack()
    assert readable(fd, PATIENCE)
    assert bodies(queue) == [b"x"]


def test_descriptor_tells_of_other_processes(
    queue: Queue, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    fd = queue.fileno()
    python("""
for i in range(20):
    store.queue("q").put(str(i))
    time.sleep(0.01)
""")
    taken: list[bytes] = []
    while len(taken) < 20:
        assert readable(fd, PATIENCE)
        taken += bodies(queue)
    assert taken == [b"%d" % i for i in range(20)]


def test_several_descriptors_of_one_process(store: Store) -> None:
    queues = [store.queue(f"q{i}") for i in range(4)]
    fds = [queue.fileno() for queue in queues]
    assert len(set(fds)) == 4
    for turn in (2, 0, 3, 1):
        queues[turn].put(b"x")
        assert readable(fds[turn], PATIENCE)
        assert bodies(queues[turn]) == [b"x"]


def test_two_handles_of_one_queue(connect: Callable[..., Store]) -> None:
    a, b = connect().queue("q"), connect().queue("q")
    fd_a, fd_b = a.fileno(), b.fileno()
    a.put_many([b"1", b"2"])
    assert select.select([fd_a, fd_b], [], [], PATIENCE)[0]
    first = a.get(timeout=0)
    assert first is not None
    assert bodies(b) == [b"2"]


def test_asyncio(queue: Queue, python: Callable[[str], subprocess.Popen[str]]) -> None:
    python("""
for i in range(30):
    store.queue("q").put(str(i), delay=0.05 if i % 3 == 0 else 0)
""")

    async def consume() -> list[int]:
        taken: list[int] = []
        done = asyncio.Event()

        def ready() -> None:
            taken.extend(int(body) for body in bodies(queue))
            if len(taken) >= 30:
                done.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(queue.fileno(), ready)
        try:
            await asyncio.wait_for(done.wait(), PATIENCE)
        finally:
            loop.remove_reader(queue.fileno())
        return taken

    assert sorted(asyncio.run(consume())) == list(range(30))


def test_epoll_edge(queue: Queue) -> None:
    """A loop that looks at changes only (EPOLLET) is told of each message after a quiet moment."""
    with select.epoll() as loop:
        loop.register(queue.fileno(), select.EPOLLIN | select.EPOLLET)
        for turn in range(5):
            queue.put(b"%d" % turn)
            assert loop.poll(PATIENCE)
            assert bodies(queue) == [b"%d" % turn]


# ------------------------------------------------------------------ Waiter


@pytest.fixture
def waiter(store: Store) -> Waiter:
    return store.waiter()


def park(waiter: Waiter) -> None:
    assert waiter.arm() is True
    assert not readable(waiter.fileno(), 0.02)


def test_waiter_of_several_queues(store: Store, waiter: Waiter) -> None:
    queues = [store.queue(f"q{i}") for i in range(3)]
    for queue in queues:
        waiter.watch(queue)
    for queue in queues * 2:
        park(waiter)
        queue.put(b"x")
        assert readable(waiter.fileno(), PATIENCE)
        waiter.drain()
        assert not readable(waiter.fileno(), 0)
        assert [bodies(q) for q in queues] == [[b"x"] if q is queue else [] for q in queues]
    waiter.close()


def test_arm_says_when_something_is_there(queue: Queue, waiter: Waiter) -> None:
    queue.put(b"x")
    waiter.watch(queue)
    assert waiter.arm() is False
    assert bodies(queue) == [b"x"]
    park(waiter)


def test_arm_again_and_again(queue: Queue, waiter: Waiter) -> None:
    waiter.watch(queue)
    waiter.watch(queue)
    for _ in range(3):
        park(waiter)
    waiter.drain()
    waiter.drain()
    park(waiter)
    queue.put(b"x")
    assert readable(waiter.fileno(), PATIENCE)
    waiter.drain()
    assert waiter.arm() is False
    assert waiter.arm() is False


def test_unwatched_queues_do_not_wake(store: Store, waiter: Waiter) -> None:
    a, b = store.queue("a"), store.queue("b")
    waiter.watch(a)
    waiter.watch(b)
    waiter.unwatch(b)
    waiter.unwatch(b)
    park(waiter)
    b.put(b"x")
    assert not readable(waiter.fileno(), 0.1)
    a.put(b"x")
    assert readable(waiter.fileno(), PATIENCE)


def test_due_messages_wake_a_waiter(queue: Queue, waiter: Waiter) -> None:
    waiter.watch(queue)
    queue.put(b"x", delay=0.1)
    assert waiter.arm() is True
    assert queue.counts().delayed == 1
    while not queue.counts().ready:
        assert readable(waiter.fileno(), PATIENCE)
        waiter.drain()
        if not queue.counts().ready:
            waiter.arm()
    assert bodies(queue) == [b"x"]


def test_disarmed_is_not_woken_and_others_are(queue: Queue, waiter: Waiter) -> None:
    waiter.watch(queue)
    park(waiter)
    waiter.disarm()
    getter = Getter(queue)
    queue.put(b"x")
    message = getter.wait()
    assert message is not None
    assert not readable(waiter.fileno(), 0.05)


def test_disarm_hands_the_wake_up_on(queue: Queue, waiter: Waiter) -> None:
    """One message, one wake-up: who took it and does not consume passes it to who waits."""
    waiter.watch(queue)
    for turn in range(20):
        assert queue.get(timeout=0) is None
        park(waiter)
        getter = Getter(queue)
        queue.put(b"%d" % turn)
        waiter.disarm()
        message = getter.wait()
        assert message is not None
        message.ack()
        waiter.drain()


def test_a_closed_waiter(queue: Queue, waiter: Waiter) -> None:
    waiter.watch(queue)
    park(waiter)
    waiter.close()
    waiter.close()
    for call in (waiter.fileno, waiter.arm):
        with pytest.raises(celeriac.ConfigurationError, match="closed"):
            call()
    getter = Getter(queue)
    queue.put(b"x")
    assert getter.wait() is not None


def test_a_waiter_that_is_made_takes_no_wake_up_from_another(
    store: Store, queue: Queue, waiter: Waiter
) -> None:
    """A process's waiters share one pipe; who opens it finds another's wake-up in there."""
    waiter.watch(queue)
    descriptor = waiter.fileno()
    assert waiter.arm()
    queue.put("x")
    late = store.waiter()
    late.fileno()
    assert readable(descriptor, PATIENCE)
    late.close()


def test_waiters_come_and_go(store: Store, queue: Queue) -> None:
    for _ in range(30):
        waiter = store.waiter()
        waiter.watch(queue)
        assert waiter.arm() is True
        waiter.close()
    for _ in range(30):
        waiter = store.waiter()
        waiter.watch(queue)
        assert waiter.arm() is True
        del waiter  # forgotten, not closed
    queue.put(b"x")
    assert bodies(queue) == [b"x"]
