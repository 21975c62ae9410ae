"""Many threads on one store, and stores that are closed while others use them."""

from __future__ import annotations

import select
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import celeriac
from celeriac import Store

PATIENCE = 30


class Worker(threading.Thread):
    """A thread whose error is the test's."""

    def __init__(self, run: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._run, self.error = run, None
        self.start()

    error: BaseException | None

    def run(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        self.join(PATIENCE)
        assert not self.is_alive(), "still blocked"
        if self.error is not None:
            raise self.error


def test_threads_share_a_store(store: Store) -> None:
    cache, queue, table = store.cache(), store.queue("q"), store.table("t")
    cache.set("n", 0)
    table.set("n", 0)
    taken: Counter[bytes] = Counter()
    mutex = threading.Lock()

    def work(number: int) -> None:
        for i in range(300):
            cache.incr("n")
            table.incr("n", 2**65)
            cache.set(f"{number}-{i}", (number, i))
            queue.put(f"{number}-{i}")
            message = queue.get(PATIENCE)
            assert message is not None
            message.ack()
            with mutex:
                taken[message.body] += 1
            assert cache.get(f"{number}-{i}") == (number, i)

    workers = [Worker(partial(work, i)) for i in range(8)]
    for worker in workers:
        worker.finish()
    assert cache.get("n") == 2400
    assert table.get("n") == 2400 * 2**65
    assert taken == Counter({f"{n}-{i}".encode(): 1 for n in range(8) for i in range(300)})
    assert queue.counts() == (0, 0, 0, 0, 2400)


def test_threads_that_open_and_close(url: str) -> None:
    celeriac.connect(url).cache().set("n", 0)

    def work() -> None:
        for _ in range(50):
            with celeriac.connect(url) as store:
                store.cache().incr("n")
                store.queue("q").put(b"x")
                message = store.queue("q").get(PATIENCE)
                assert message is not None
                message.ack()

    for worker in [Worker(work) for _ in range(4)]:
        worker.finish()
    assert celeriac.connect(url).cache().get("n") == 200


def test_handles_close_one_by_one(url: str) -> None:
    a, b = celeriac.connect(url), celeriac.connect(url)
    cache, queue = b.cache(), b.queue("q")
    queue.put(b"x")
    message = queue.get(0)
    assert message is not None
    a.close()
    a.close()
    assert (a.closed, b.closed) == (True, False)
    cache.set("k", 1)
    message.ack()
    with pytest.raises(celeriac.ConfigurationError, match="closed"):
        a.cache()
    b.close()
    with pytest.raises(celeriac.ConfigurationError, match="closed"):
        cache.get("k")
    with celeriac.connect(url) as c:
        assert c.cache().get("k") == 1


SLEEPS: dict[str, Callable[[Store], object]] = {
    "get": lambda store: store.queue("q").get(),
    "get for a while": lambda store: store.queue("q").get(PATIENCE),
    "get_many": lambda store: store.queue("q").get_many(2, timeout=None),
    "wait_for_change": lambda store: store.table("t").wait_for_change(
        "k", store.table("t").change_count("k")
    ),
}


@pytest.mark.parametrize("sleep", sorted(SLEEPS))
@pytest.mark.parametrize("others", [False, True], ids=["last handle", "one of two"])
def test_close_wakes_who_sleeps(url: str, sleep: str, others: bool) -> None:
    store = celeriac.connect(url)
    other = celeriac.connect(url) if others else None
    workers = [Worker(lambda: SLEEPS[sleep](store)) for _ in range(2)]
    time.sleep(0.1)
    assert all(worker.is_alive() for worker in workers)
    store.close()
    for worker in workers:
        with pytest.raises(celeriac.ConfigurationError, match="closed"):
            worker.finish()
    if other is not None:
        assert other.queue("q").get(0) is None
        other.close()


def test_close_wakes_event_loops(url: str) -> None:
    store = celeriac.connect(url)
    queue, waiter = store.queue("q"), store.waiter()
    waiter.watch(queue)
    assert waiter.arm() is True
    fds = [waiter.fileno(), queue.fileno()]
    waiter.drain()  # the second one has rung the first: it might have taken its wake-up
    assert waiter.arm() is True
    closing = threading.Timer(0.1, store.close)
    closing.start()
    assert select.select(fds, [], [], PATIENCE)[0]
    closing.join()
    for call in (waiter.arm, waiter.drain, waiter.disarm, lambda: queue.get(0), queue.fileno):
        with pytest.raises(celeriac.ConfigurationError, match="closed"):
            call()
    waiter.close()


def busy(store: Store, kind: int, started: threading.Barrier) -> None:
    cache, queue, table = store.cache(), store.queue("q"), store.table("t")
    started.wait()
    while True:
        if kind == 0:
            cache.set("k", b"x" * 3000)
            cache.incr("n")
        elif kind == 1:
            queue.put(b"x" * 100)
            message = queue.get(0.01)
            if message is not None:
                message.ack()
        else:
            table.set("k", [1])
            table.get_many(["k", "n"])


def test_close_while_others_work(url: str) -> None:
    celeriac.connect(url).cache().set("n", 0)
    for turn in range(30):
        store = celeriac.connect(url)
        started = threading.Barrier(4)
        workers = [Worker(partial(busy, store, kind, started)) for kind in range(3)]
        started.wait()
        time.sleep(0.002 * (turn % 5))
        store.close()
        for worker in workers:
            with pytest.raises(celeriac.ConfigurationError, match="closed"):
                worker.finish()
    with celeriac.connect(url) as store:
        assert store.stats()["corrupt"] == 0
        assert store.queue("q").counts().reserved == 0


def test_everything_of_a_closed_store_says_so(url: str) -> None:
    store = celeriac.connect(url)
    cache, table, queue, waiter = store.cache(), store.table("t"), store.queue("q"), store.waiter()
    cache.set("k", 1)
    queue.put(b"x")
    message = queue.get(0)
    assert message is not None
    path = store.path
    store.close()
    calls: list[Callable[[], object]] = [
        store.cache,
        lambda: store.table("t"),
        lambda: store.queue("q"),
        lambda: store.has_queue("q"),
        store.queues,
        store.waiter,
        store.stats,
        store.owners,
        store.recover,
        store.destroy,
        lambda: cache.get("k"),
        lambda: cache.set("k", 1),
        lambda: cache.add("k", 1),
        lambda: cache.replace("k", 1),
        lambda: cache.delete("k"),
        lambda: cache.touch("k"),
        lambda: cache.persist("k"),
        lambda: cache.ttl("k"),
        lambda: cache.incr("k"),
        lambda: cache.incr("k", 2**70),
        lambda: cache.get_many(["k"]),
        lambda: cache.set_many({"k": 1}),
        lambda: cache.delete_many(["k"]),
        lambda: "k" in cache,
        lambda: len(cache),
        lambda: cache.cull(1),
        cache.clear,
        cache.stats,
        table.items,
        lambda: table.get_versioned("k"),
        lambda: table.compare_and_set("k", 0, 1),
        lambda: table.change_count("k"),
        lambda: table.wait_for_change("k", 0, 0),
        lambda: queue.put(b"x"),
        lambda: queue.get(0),
        queue.get,
        lambda: queue.get_many(1),
        queue.counts,
        queue.dropped,
        queue.ready,
        queue.purge,
        queue.delete,
        queue.fileno,
        message.ack,
        message.nack,
        waiter.fileno,
        waiter.arm,
        waiter.drain,
        waiter.disarm,
        lambda: waiter.watch(queue),
    ]
    for call in calls:
        with pytest.raises(celeriac.ConfigurationError, match="closed"):
            call()
    assert (store.closed, store.path, message.body) == (True, path, b"x")
    assert "closed" in repr(store)
    waiter.close()
    store.close()


# ------------------------------------------------------------------ idle


IDLE = {
    "get()": "q.get()",
    "get(60)": "q.get(60)",
    "wait_for_change": 't.wait_for_change("k", t.change_count("k"))',
    "event loop": "w.arm(); select.select([w.fileno()], [], [], 60)",
    "delayed": 'q.put(b"x", delay=3600); q.get()',
    "lock": 'store.lock("held").acquire()',
    "leased lock": 'store.lock("leased").acquire(timeout=3600)',
    "semaphore": 'store.semaphore("held", 1).acquire()',
    "leader": 'store.leader("held").acquire()',
    "concurrency": 'store.concurrency("held", 1).acquire()',
}


def switches(pid: int) -> dict[str, int]:
    """How often each thread of a process went to sleep by itself."""
    return {
        task.name: int(
            (task / "status").read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0]
        )
        for task in Path(f"/proc/{pid}/task").iterdir()
    }


def test_idle_is_idle(store: Store, python: Callable[..., subprocess.Popen[str]]) -> None:
    """Nobody who waits wakes up for nothing: all kinds at once, each in a process of its own."""
    for held in (store.lock("held"), store.semaphore("held", 1), store.leader("held")):
        held.acquire()
    store.lock("leased", ttl=3600).acquire()
    slot = store.concurrency("held", 1).acquire()
    processes = {
        how: python(f"""
import select
q, t, w = store.queue({how!r}), store.table("t"), store.waiter()
w.watch(q)
print("waits", flush=True)
{wait}
""")
        for how, wait in IDLE.items()
    }
    for process in processes.values():
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"

    def all_switches() -> dict[str, dict[str, int]]:
        return {how: switches(process.pid) for how, process in processes.items()}

    # On a busy machine it takes a while until each has come to its wait.
    deadline = time.monotonic() + PATIENCE
    before: dict[str, dict[str, int]] = {}
    while (now := all_switches()) != before and time.monotonic() < deadline:
        before = now
        time.sleep(0.5)
    time.sleep(2)
    assert all_switches() == before
    assert all(process.poll() is None for process in processes.values())
    assert slot
