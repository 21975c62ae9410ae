"""Locks between processes: one inside at a time, whoever is killed; a fork holds nothing."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import celeriac

FORK = multiprocessing.get_context("fork")
LONG = 60.0


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def locked_store(store: celeriac.Store) -> celeriac.Store:
    """The store, with this process in it."""
    store.lock("warm").acquire()
    return store


PF_EXITING = 4  # of the kernel's flags of a process
ENTRY = struct.Struct("=QQ")  # token, of which one is inside


class Ledger:
    """A file in which who is inside writes that it is, and nothing when it leaves."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.pwrite(self.fd, ENTRY.pack(0, 0), 0)

    def enter(self, token: int) -> None:
        """Raises AssertionError when another is inside, or was later than us."""
        last, inside = ENTRY.unpack(os.pread(self.fd, ENTRY.size, 0))
        if token <= last:
            raise AssertionError(f"token {token} comes after {last}")
        if inside and self.alive(inside):
            raise AssertionError(f"{inside} is inside")
        os.pwrite(self.fd, ENTRY.pack(token, os.getpid()), 0)

    def leave(self, token: int) -> None:
        """Raises AssertionError when another came in."""
        if ENTRY.unpack(os.pread(self.fd, ENTRY.size, 0)) != (token, os.getpid()):
            raise AssertionError("another came in")
        os.pwrite(self.fd, ENTRY.pack(token, 0), 0)

    @staticmethod
    def alive(pid: int) -> bool:
        """Whether it may run: one that is exiting doesn't, though it isn't a zombie yet."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        fields = stat.rpartition(")")[2].split()
        return fields[0] not in "ZX" and not int(fields[6]) & PF_EXITING


def _work(url: str, path: Path, name: str, broken: Any) -> None:
    ledger = Ledger.__new__(Ledger)
    ledger.fd = os.open(path, os.O_RDWR)
    store = celeriac.connect(url)
    lock = store.lock(name)
    chance = random.Random(os.getpid())
    while True:
        if not lock.acquire(timeout=chance.choice([None, 0, 0.001])):
            continue
        try:
            assert lock.token is not None
            ledger.enter(lock.token)
            if chance.random() < 0.1:
                time.sleep(0.0005)
            ledger.leave(lock.token)
        except AssertionError as error:
            broken.put(str(error))
            return
        lock.release()


def test_one_is_inside_whoever_is_killed(locked_store: celeriac.Store, tmp_path: Path) -> None:
    """Processes come and go by SIGKILL; each that is inside finds nobody else there."""
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    broken = FORK.SimpleQueue()
    arguments = (locked_store.url, path, "a", broken)
    workers = [FORK.Process(target=_work, args=arguments) for _ in range(4)]
    for worker in workers:
        worker.start()
    chance = random.Random(5)
    tokens = []
    for kill in range(60):
        time.sleep(0.01)
        victim = kill % 4
        if chance.random() < 0.3:
            os.kill(workers[victim].pid or 0, signal.SIGSTOP)
            time.sleep(0.005)
        workers[victim].kill()
        workers[victim].join()
        workers[victim] = FORK.Process(target=_work, args=arguments)
        workers[victim].start()
        lock = locked_store.lock("a")
        assert lock.acquire(timeout=LONG), f"after kill {kill} nobody has it, and nobody gets it"
        assert lock.token is not None
        ledger.enter(lock.token)
        ledger.leave(lock.token)
        tokens.append(lock.token)
        lock.release()
        assert broken.empty(), broken.get()
    for worker in workers:
        worker.kill()
        worker.join()
    assert broken.empty(), broken.get()
    assert tokens == sorted(tokens)
    assert tokens[-1] - tokens[0] > 120, "the others had it as well"
    locked_store.recover()
    assert [info.name for info in locked_store.locks()] == ["warm"]


def _hold(url: str, name: str, ready: Any) -> None:
    celeriac.connect(url).lock(name).acquire()
    ready.set()
    time.sleep(LONG)


def test_the_death_of_the_holder_wakes_who_waits_first(locked_store: celeriac.Store) -> None:
    ready = FORK.Event()
    holder = FORK.Process(target=_hold, args=(locked_store.url, "a", ready))
    holder.start()
    assert ready.wait(LONG)
    order: list[int] = []

    def wait(number: int) -> None:
        with locked_store.lock("a"):
            order.append(number)

    lock = locked_store.lock("a")
    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        until(lambda number=number: lock.waiting() == number + 1)
    holder.kill()
    for thread in threads:
        thread.join(LONG)
    assert order == [0, 1, 2, 3]
    holder.join()


def test_the_death_of_the_holder_is_known_at_once(locked_store: celeriac.Store) -> None:
    """In most cases within 50 ms: the median of fifteen."""
    lock = locked_store.lock("a")
    took = []
    for _ in range(15):
        ready = FORK.Event()
        holder = FORK.Process(target=_hold, args=(locked_store.url, "a", ready))
        holder.start()
        assert ready.wait(LONG)
        got: list[float] = []

        def wait(got: list[float] = got) -> None:
            lock.acquire()
            got.append(time.monotonic())
            lock.release()

        waits = threading.Thread(target=wait)
        waits.start()
        until(lambda: lock.waiting() == 1)
        killed = time.monotonic()
        holder.kill()
        waits.join(LONG)
        took.append(got[0] - killed)
        holder.join()
    assert sorted(took)[len(took) // 2] < 0.05, took


def test_the_death_of_who_waits_first_lets_the_next_be_first(locked_store: celeriac.Store) -> None:
    lock = locked_store.lock("a")
    lock.acquire()
    ready = FORK.Event()
    dies = FORK.Process(target=_hold, args=(locked_store.url, "a", ready))
    dies.start()
    until(lambda: lock.waiting() == 1)
    got = threading.Thread(target=locked_store.lock("a").acquire)
    got.start()
    until(lambda: lock.waiting() == 2)
    dies.kill()
    dies.join()
    lock.release()
    got.join(LONG)
    assert not got.is_alive()


def _token(url: str, says: Any) -> None:
    with celeriac.connect(url).lock("a") as lock:
        says.send(lock.token)


def test_first_come_first_served(locked_store: celeriac.Store) -> None:
    lock = locked_store.lock("a")
    lock.acquire()
    pipes, processes = [], []
    for number in range(6):
        ours, theirs = FORK.Pipe()
        pipes.append(ours)
        processes.append(FORK.Process(target=_token, args=(locked_store.url, theirs)))
        processes[-1].start()
        until(lambda number=number: lock.waiting() == number + 1)
    lock.release()
    tokens = [pipe.recv() for pipe in pipes if pipe.poll(LONG)]
    for process in processes:
        process.join()
    assert len(set(tokens)) == 6
    assert tokens == sorted(tokens), "in the order of coming"


def _in_a_child(work: Callable[[], str]) -> str:
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=lambda: theirs.send(work()))
    process.start()
    assert ours.poll(LONG)
    said = ours.recv()
    process.join()
    return str(said)


@pytest.mark.parametrize("kind", ["lock", "reentrant", "semaphore", "leader"])
def test_a_forked_child_holds_nothing(locked_store: celeriac.Store, kind: str) -> None:
    lock: Any = {
        "lock": lambda: locked_store.lock("a"),
        "reentrant": lambda: locked_store.lock("a", reentrant=True),
        "semaphore": lambda: locked_store.semaphore("a", 1),
        "leader": lambda: locked_store.leader("a"),
    }[kind]()
    assert lock.acquire()
    token = lock.token

    def child() -> str:
        for call in (lock.release, lock.renew):
            try:
                call()
            except celeriac.NotOwner:
                continue
            return "released"
        assert lock.token is None
        return f"{lock.locked()} {lock.acquire(blocking=False)} {lock.acquire(timeout=0.01)}"

    assert _in_a_child(child) == "True False False"
    assert lock.token == token
    lock.release()
    assert _in_a_child(lambda: str(lock.acquire(blocking=False))) == "True"
    until(lambda: not lock.locked())


def test_a_child_may_wait_for_its_parent(locked_store: celeriac.Store) -> None:
    lock = locked_store.lock("a")
    lock.acquire()
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=lambda: theirs.send(lock.acquire(timeout=LONG)))
    process.start()
    until(lambda: lock.waiting() == 1)
    lock.release()
    assert ours.poll(LONG)
    assert ours.recv() is True
    process.join()


def test_a_parent_that_dies_keeps_nothing_by_its_children(locked_store: celeriac.Store) -> None:
    def parent(says: Any) -> None:
        celeriac.connect(locked_store.url).lock("a").acquire()
        child = os.fork()
        if child == 0:
            time.sleep(LONG)  # with all that it inherited
            os._exit(0)
        says.send(child)
        time.sleep(LONG)

    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=parent, args=(theirs,))
    process.start()
    assert ours.poll(LONG)
    child = ours.recv()
    process.kill()
    try:
        assert locked_store.lock("a").acquire(timeout=LONG)
    finally:
        os.kill(child, signal.SIGKILL)
        process.join()
