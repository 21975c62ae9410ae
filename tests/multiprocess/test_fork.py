"""Children of every kind: another owner, on the same store."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import children
import pytest

import celeriac
from celeriac import Store

PATIENCE = 30
Fork = Callable[[Callable[[], object]], int]


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# ------------------------------------------------------------------ handles


def test_children_share_the_store(store: Store, context: Any, child: Any) -> None:
    store.cache().set("visits", 0)
    started = [child(context, children.use_store, store, i) for i in range(3)]
    for process in started:
        process.join(PATIENCE)
    assert [process.exitcode for process in started] == [0, 0, 0]
    assert store.cache().get("visits") == 3
    assert dict(store.table("t").items()) == {f"pid{i}": p.pid for i, p in enumerate(started)}
    assert {m.body for m in store.queue("q").get_many(9)} == {b"from 0", b"from 1", b"from 2"}


def test_children_are_owners_of_their_own(store: Store, context: Any, child: Any) -> None:
    store.cache().get("register me")
    ours, theirs = multiprocessing.Pipe()
    process = child(context, children.report_identity, store, theirs)
    assert ours.poll(PATIENCE)
    (identity,) = ours.recv()
    assert identity["pid"] == process.pid
    (mine,) = [o for o in store.owners() if o["pid"] == os.getpid()]
    assert (mine["slot"], mine["epoch"]) != (identity["slot"], identity["epoch"])


def test_children_that_open_the_store_themselves(url: str, context: Any, child: Any) -> None:
    celeriac.connect(url).cache().set("visits", 0)
    started = [child(context, children.attach_by_url, url, i) for i in range(3)]
    for process in started:
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert celeriac.connect(url).cache().get("visits") == 3


def test_handles_pickle_as_urls(url: str) -> None:
    store = celeriac.connect(url, memory="64M")
    store.cache().set("k", 1)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(store, protocol)
        assert url.encode() in data
        with pickle.loads(data) as again:
            assert again is not store
            assert again.url == store.url == f"{url}?memory={64 << 20}"
            assert again.cache().get("k") == 1
        assert again.closed
    assert copy.copy(store).path == store.path
    assert store.cache().get("k") == 1


def test_parts_pickle_as_how_they_are_made(url: str, context: Any, child: Any) -> None:
    store = celeriac.connect(url)
    store.queue("q").put(b"x")
    own = {"ttl": 100, "serializer": "json", "compressor": "zlib", "max_entries": 7, "version": 2}
    cache = store.cache("c", **own)  # type: ignore[arg-type]
    parts = (
        cache,
        store.table("t", ttl=50),
        store.queue("q", max_deliveries=1),
        store.cache("d", overflow="o", lead="p:"),
        celeriac.aio.AsyncCache(cache),
    )
    process = child(context, children.use_parts, *parts)
    process.join(PATIENCE)
    assert process.exitcode == 0
    assert cache.get("k") == {"a": [1, 2]}
    assert 90 < (cache.ttl("k") or 0) <= 100
    assert 40 < (parts[1].ttl("n") or 0) <= 50
    assert parts[2].counts().dead == 1
    assert parts[3].stats_by_prefix()["a"].entries == 1
    for part in (*parts, copy.copy(cache)):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            again = pickle.loads(pickle.dumps(part, protocol))
            assert (type(again), again.name) == (type(part), part.name)
    assert pickle.loads(pickle.dumps(cache)).max_entries == 7
    queue = pickle.dumps(store.queue("q", create=False))
    store.queue("q").delete()
    with pytest.raises(celeriac.StoreNotFound):
        pickle.loads(queue)


def test_other_parts_do_not_pickle(store: Store) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    for part in (store.waiter(), queue.get(0)):
        with pytest.raises(TypeError, match="pickle"):
            pickle.dumps(part)


# ------------------------------------------------------------------ after fork


def test_all_handles_work_after_fork(store: Store, fork: Fork) -> None:
    cache, table, queue = store.cache(), store.table("t"), store.queue("q")
    table.set("n", 0)
    queue.put(b"before")

    def run() -> None:
        assert store.closed is False
        cache.set("k", "child")
        table.incr("n")
        message = queue.get(0)
        assert message is not None
        message.ack()
        queue.put(b"after")
        assert store.stats()["owners"] == 2
        assert len(store.owners()) == 2
        assert store.queues() == ["q"]

    assert ended(fork(run)) == 0
    assert cache.get("k") == "child"
    assert table.get("n") == 1
    message = queue.get(0)
    assert message is not None
    assert message.body == b"after"


def test_a_message_stays_with_who_took_it(store: Store, fork: Fork) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    message = queue.get(0)
    assert message is not None

    def run() -> None:
        assert message.body == b"x"
        for call in (message.ack, message.nack):
            with pytest.raises(celeriac.NotOwner):
                call()

    assert ended(fork(run)) == 0
    assert queue.counts().reserved == 1
    message.ack()


def test_the_end_of_a_child_takes_nothing_from_its_parent(store: Store, fork: Fork) -> None:
    queue = store.queue("q")
    mine = store.queue("mine", owner_bound=True)
    queue.put_many([b"1", b"2"])
    message = queue.get(0)
    assert message is not None
    for run in (store.close, lambda: queue.get(0), lambda: store.cache().get("k"), lambda: None):
        assert ended(fork(run)) == 0
        store.recover()
        assert queue.counts()[:3] == (1, 0, 1)
        assert store.has_queue("mine")
    mine.put(b"x")
    message.ack()


def test_the_end_of_a_child_that_never_used_the_store(store: Store, fork: Fork) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    message = queue.get(0)
    assert message is not None

    def run() -> None:
        sys.stdout.flush()
        signal.raise_signal(signal.SIGKILL)

    assert ended(fork(run)) == -signal.SIGKILL
    store.recover()
    message.ack()


@pytest.mark.parametrize("use", ["pass", 'store.cache().get("k")', 'store.queue("q").get(0)'])
def test_a_dead_parents_messages_come_back_while_its_child_lives(
    store: Store, python: Callable[..., subprocess.Popen[str]], use: str
) -> None:
    """The child has all of the parent's descriptors, but not its life."""
    queue = store.queue("q")
    queue.put(b"x")
    parent = python(f"""
message = store.queue("q").get(0)
pid = os.fork()
if pid == 0:
    {use}
    print(os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
""")
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    try:
        assert queue.counts().reserved == 1
        parent.kill()
        parent.wait()
        message = queue.get(PATIENCE)
        os.kill(orphan, 0)  # it lives
    finally:
        os.kill(orphan, signal.SIGKILL)
    assert message is not None
    assert message.redelivered
    message.ack()


def test_fork_while_another_thread_waits(store: Store, fork: Fork) -> None:
    queue = store.queue("q")
    taken: list[bytes] = []

    def wait() -> None:
        message = queue.get(PATIENCE)
        if message is not None:
            taken.append(message.body)
            message.ack()

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)

    def run() -> None:
        other = store.queue("from the child")
        other.put(b"x")
        message = other.get(PATIENCE)
        assert message is not None
        message.ack()
        assert other.get(0.05) is None  # sleeps, with a watcher of its own
        queue.put(b"for the parent")

    assert ended(fork(run)) == 0
    thread.join(PATIENCE)
    assert taken == [b"for the parent"]


def test_fork_while_other_threads_are_busy(store: Store, fork: Fork) -> None:
    stop = threading.Event()
    cache, queue = store.cache(), store.queue("q")

    def work(number: int) -> None:
        while not stop.is_set():
            cache.set(f"k{number}", b"x" * 2000)
            queue.put(b"x")
            message = queue.get(0.001)
            if message is not None:
                message.ack()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()

    def run() -> None:
        for i in range(20):
            cache.set(f"child {i}", b"y" * 2000)
            queue.put(b"x")
            message = queue.get(1)
            if message is not None:
                message.ack()

    try:
        for _ in range(15):
            assert ended(fork(run)) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    store.recover()
    assert queue.counts().reserved == 0


def test_descriptors_after_fork(store: Store, fork: Fork) -> None:
    queue = store.queue("q")
    parents = queue.fileno()
    waiter = store.waiter()
    waiter.watch(queue)
    assert waiter.arm() is True

    def run() -> None:
        for fd_of, again in ((queue, False), (waiter, True)):
            if again:
                assert waiter.arm() is True
            assert not select.select([fd_of.fileno()], [], [], 0)[0]
            queue.put(b"x")
            assert select.select([fd_of.fileno()], [], [], PATIENCE)[0]
            if again:
                waiter.drain()
            message = queue.get(0)
            assert message is not None
            message.ack()
            assert queue.get(0) is None

    assert ended(fork(run)) == 0
    queue.get(0)
    queue.put(b"for the parent")
    assert select.select([parents], [], [], PATIENCE)[0]


def test_grandchildren(store: Store, fork: Fork) -> None:
    cache = store.cache()
    cache.set("n", 0)

    def run() -> None:
        cache.incr("n")
        assert ended(fork(lambda: cache.incr("n"))) == 0
        cache.incr("n")

    assert ended(fork(run)) == 0
    assert cache.get("n") == 3


def test_fork_in_a_thread(store: Store, fork: Fork) -> None:
    statuses: list[int] = []
    thread = threading.Thread(
        target=lambda: statuses.append(ended(fork(lambda: store.cache().set("k", 1))))
    )
    thread.start()
    thread.join(PATIENCE)
    assert statuses == [0]
    assert store.cache().get("k") == 1


def test_forget_a_store_and_fork(url: str, fork: Fork) -> None:
    """Closed before the fork: closed in the child; it opens anew."""
    store = celeriac.connect(url)
    store.cache().set("k", 1)
    store.close()

    def run() -> None:
        with pytest.raises(celeriac.ConfigurationError, match="closed"):
            store.cache()
        with celeriac.connect(url) as again:
            assert again.cache().get("k") == 1

    assert ended(fork(run)) == 0


def test_fork_without_end(store: Store, python: Callable[..., subprocess.Popen[str]]) -> None:
    """Slots of the dead are used again: more children than there are slots."""
    store.cache().set("n", 0)
    process = python("""
cache = store.cache()
for _ in range(1100):
    pid = os.fork()
    if pid == 0:
        cache.incr("n")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
""")
    assert process.wait(60) == 0
    assert store.cache().get("n") == 1100
    store.recover()
    assert store.stats()["owners"] == 1


# ------------------------------------------------------------------ as servers use it

PRELOAD = """
import gunicorn.app.base
def application(environ, start_response):
    if environ["PATH_INFO"] == "/n":
        body = str(store.cache().incr("n"))
    else:
        body = str(store.stats()["owners"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {body}".encode()]
class App(gunicorn.app.base.BaseApplication):
    def load_config(self):
        for key, value in {"bind": "unix:" + sys.argv[2], "workers": 3, "threads": 2,
                           "preload_app": True, "loglevel": "error"}.items():
            self.cfg.set(key, value)
    def load(self):
        store.cache().set("n", 0)  # the master is an owner, before its workers are
        return application
App().run()
"""


def ask(path: str, target: str) -> tuple[int, int]:
    import http.client
    import socket

    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(PATIENCE)
    connection.sock.connect(path)
    connection.request("GET", target, headers={"Connection": "close"})
    pid, number = connection.getresponse().read().split()
    connection.close()
    return int(pid), int(number)


@pytest.mark.worker
def test_gunicorn_preload(
    store: Store, python: Callable[..., subprocess.Popen[str]], tmp_path: Any
) -> None:
    pytest.importorskip("gunicorn", reason="install gunicorn")
    path = f"{tmp_path}/s"
    server = python(PRELOAD, path)
    children.until(lambda: os.path.exists(path) or server.poll() is not None)
    answers = [ask(path, "/n") for _ in range(60)]
    assert [n for _, n in answers] == list(range(1, 61))
    workers = {pid for pid, _ in answers}
    assert server.pid not in workers
    victim = workers.pop()
    os.kill(victim, signal.SIGKILL)
    assert [ask(path, "/n")[1] for _ in range(20)] == list(range(61, 81))
    server.send_signal(signal.SIGTERM)
    assert server.wait(PATIENCE) == 0
    store.recover()
    assert store.stats()["owners"] == 1
