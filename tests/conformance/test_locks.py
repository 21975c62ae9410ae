"""Locks by name: one holder, first come first served, until released, late, or dead."""

from __future__ import annotations

import pickle
import signal
import subprocess
import threading
from collections.abc import Callable
from typing import Any

import pytest
from waiting import LONG, until

import celeriac

Python = Callable[[str], "subprocess.Popen[str]"]


def in_thread(call: Callable[[], Any]) -> Any:
    """What the call gives, or raises, in another thread."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(LONG)
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


def test_acquire_and_release(store: celeriac.Store) -> None:
    lock = store.lock("a")
    assert (lock.name, lock.ttl, lock.reentrant, lock.locked()) == ("a", None, False, False)
    assert (lock.token, lock.owner, lock.holders()) == (None, None, [])
    assert lock.acquire() is True
    assert lock.locked() is True
    other = store.lock("a")
    assert other.locked() is True
    assert other.owner is not None
    assert other.owner == lock.owner
    assert other.owner.token == lock.token
    assert other.acquire(blocking=False) is False
    assert other.acquire(timeout=0) is False
    assert other.acquire(timeout=0.01) is False
    assert store.lock("b").acquire(blocking=False) is True
    lock.release()
    assert lock.locked() is False
    assert other.acquire(blocking=False) is True


def test_with(store: celeriac.Store) -> None:
    lock = store.lock("a", timeout=0.01)
    with lock as entered:
        assert entered is lock
        with pytest.raises(celeriac.LockTimeout, match=r"lock 'a' could not be had within 0\.01 s"):
            store.lock("a", timeout=0.01).__enter__()
    assert not lock.locked()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert not lock.locked()


def test_tokens_rise_for_ever(store: celeriac.Store) -> None:
    last = 0
    for _ in range(3):
        for name in ("a", "b", "c" * 1000):
            with store.lock(name) as lock:
                assert lock.token is not None
                assert lock.token > last
                last = lock.token
    with store.semaphore("a", 2) as semaphore, store.leader("a") as leader:
        assert last < (semaphore.token or 0) < (leader.token or 0)


def test_tokens_rise_when_the_store_is_made_anew(url: str) -> None:
    with celeriac.connect(url) as store, store.lock("a") as lock:
        before = lock.token or 0
    celeriac.connect(url).destroy()
    with celeriac.connect(url) as store, store.lock("a") as lock:
        assert (lock.token or 0) > before


def test_who_isnt_the_owner(store: celeriac.Store) -> None:
    lock, other = store.lock("a"), store.lock("a")
    for call in (lock.release, lock.renew):
        with pytest.raises(celeriac.NotOwner, match="lock 'a' is not held by this thread"):
            call()
    lock.acquire()
    for call in (other.release, other.renew):
        with pytest.raises(celeriac.NotOwner):
            call()
    with pytest.raises(celeriac.NotOwner, match="not held by this thread"):
        in_thread(lock.release)
    assert in_thread(lambda: lock.token) is None
    assert lock.locked()
    lock.release()


def test_threads_are_separate_owners(store: celeriac.Store) -> None:
    lock = store.lock("a", reentrant=True)
    assert lock.acquire()
    assert in_thread(lambda: lock.acquire(timeout=0.01)) is False
    assert in_thread(lambda: store.lock("a").acquire(blocking=False)) is False


def test_a_thread_that_ended_is_not_taken_for_another(store: celeriac.Store) -> None:
    lock = store.lock("a", reentrant=True)
    assert in_thread(lock.acquire) is True
    for _ in range(5):  # with the numbers of threads that ended
        assert in_thread(lambda: lock.acquire(blocking=False)) is False
    assert lock.locked()


def test_reentrant(store: celeriac.Store) -> None:
    lock, again = store.lock("a", reentrant=True), store.lock("a", reentrant=True)
    with lock:
        token = lock.token
        with again, lock:
            assert lock.token == again.token == token
        assert in_thread(lambda: store.lock("a").acquire(blocking=False)) is False
        again.acquire()
        lock.release()
        assert lock.locked()
    assert not lock.locked()
    with pytest.raises(celeriac.NotOwner):
        again.release()


def test_waiting_for_oneself(store: celeriac.Store) -> None:
    lock = store.lock("a")
    with lock:
        with pytest.raises(celeriac.DeadlockError, match="reentrant=True"):
            lock.acquire()
        assert lock.acquire(timeout=0.01) is False
        assert lock.acquire(blocking=False) is False
    leased = store.lock("b", ttl=0.02)
    assert leased.acquire()
    assert leased.acquire()  # the lease ends, and it is this thread's again
    leased.release()
    with pytest.raises(celeriac.NotOwner):
        leased.release()


def test_first_come_first_served(store: celeriac.Store) -> None:
    lock, order = store.lock("a"), []
    lock.acquire()

    def wait(number: int) -> None:
        with store.lock("a"):
            order.append(number)

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=wait, args=(number,)))
        threads[-1].start()
        until(lambda number=number: lock.waiting() == number + 1)
    assert [info.holds for info in store.locks()].count(True) == 1
    lock.release()
    for thread in threads:
        thread.join()
    assert order == list(range(8))


def test_who_gives_up_is_passed(store: celeriac.Store) -> None:
    lock = store.lock("a")
    lock.acquire()
    assert store.lock("a").acquire(timeout=0.01) is False
    assert lock.waiting() == 0
    lock.release()
    assert store.lock("a").acquire(blocking=False)


def test_leases(store: celeriac.Store) -> None:
    lock = store.lock("a", ttl=0.02)
    lock.acquire()
    assert store.lock("a").acquire(timeout=LONG) is True
    with pytest.raises(celeriac.LockLost):
        lock.release()
    with pytest.raises(celeriac.NotOwner):
        lock.renew()
    assert store.lock("a").locked()


def test_a_late_holder_is_told_though_nobody_came(store: celeriac.Store) -> None:
    lock = store.lock("a", ttl=0.01)
    for late in (lock.release, lock.renew):
        lock.acquire()
        token = lock.token
        until(lambda: not lock.locked())
        assert lock.token == token, "what it has to show to who checks it"
        with pytest.raises(celeriac.LockLost, match=r"lock 'a': .*lease ended"):
            late()
        assert lock.token is None
    with pytest.raises(celeriac.LockLost), lock:
        until(lambda: not lock.locked())
    with pytest.raises(AssertionError, match="inside"), lock:  # says more than that it is lost
        assert not until(lambda: not lock.locked()), "inside"


def test_renewing(store: celeriac.Store) -> None:
    lock = store.lock("a", ttl=LONG)
    lock.acquire()
    (info,) = store.locks()
    assert (info.kind, info.name, info.token, info.permits) == ("lock", "a", lock.token, 1)
    assert LONG - 30 < (info.ttl or 0) <= LONG
    lock.renew(1000)
    assert 900 < (store.locks()[0].ttl or 0) <= 1000
    lock.renew()
    assert (store.locks()[0].ttl or 0) <= LONG
    waits = threading.Thread(target=store.lock("a").acquire)
    waits.start()
    until(lock.waiting)
    lock.renew(0.01)  # shorter: who waits is woken by its end
    waits.join(LONG)
    assert not waits.is_alive()
    with pytest.raises(celeriac.LockLost):
        lock.renew()
    with pytest.raises(celeriac.NotOwner):
        lock.release()


def test_a_lock_without_lease_may_be_renewed(store: celeriac.Store) -> None:
    with store.lock("a") as lock:
        lock.renew()
        assert store.locks()[0].ttl is None
        lock.renew(1000)
        assert (store.locks()[0].ttl or 0) > 900


def test_on_lost(store: celeriac.Store) -> None:
    told: list[Any] = []
    lock = store.lock("a", ttl=0.02, on_lost=told.append)
    lock.acquire()
    until(lambda: told == [lock])
    with pytest.raises(celeriac.LockLost):
        lock.release()
    lock = store.lock("a", ttl=0.05, on_lost=told.append)
    with lock:
        lock.renew(1000)
    with lock:
        pass
    quick = store.lock("b", ttl=0.06, on_lost=told.append)
    quick.acquire()
    until(lambda: quick in told)
    assert told.count(lock) == 0, "renewed, or released in time"


def test_what_on_lost_raises_is_logged(
    store: celeriac.Store, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(lock: celeriac.Lock) -> None:
        raise ZeroDivisionError

    store.lock("a", ttl=0.01, on_lost=fail).acquire()
    until(lambda: "on_lost of a lock failed" in caplog.text)
    told: list[Any] = []
    store.lock("b", ttl=0.01, on_lost=told.append).acquire()
    until(lambda: told)


def test_the_dead_hold_nothing(store: celeriac.Store, python: Python) -> None:
    process = python("store.lock('a').acquire(); print('held', flush=True); time.sleep(100)")
    assert process.stdout is not None
    process.stdout.readline()
    lock = store.lock("a")
    assert lock.acquire(blocking=False) is False
    assert lock.owner is not None
    assert lock.owner.pid == process.pid
    waits = threading.Thread(target=lock.acquire)
    waits.start()
    until(lock.waiting)
    process.kill()
    waits.join(LONG)
    assert not waits.is_alive()
    assert lock.owner.pid != process.pid


def test_without_waiting_the_dead_are_found_as_well(store: celeriac.Store, python: Python) -> None:
    process = python("store.lock('a').acquire(); print('held', flush=True); time.sleep(100)")
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    process.wait()
    lock = store.lock("a")
    until(lambda: not lock.locked())
    assert lock.acquire(blocking=False) is True


def test_who_ends_in_good_order_holds_nothing(store: celeriac.Store, python: Python) -> None:
    process = python("store.lock('a').acquire()")
    assert process.wait(LONG) == 0
    assert store.lock("a").acquire(blocking=False)


def test_a_stopped_holder_with_a_lease(store: celeriac.Store, python: Python) -> None:
    process = python(
        """
lock = store.lock('a', ttl=0.2)
lock.acquire()
print('held', flush=True)
sys.stdin.readline()
try:
    lock.release()
except celeriac.LockLost:
    print('lost', flush=True)
"""
    )
    assert process.stdout is not None
    assert process.stdin is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    lock = store.lock("a")
    assert lock.acquire(timeout=LONG)
    process.send_signal(signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "lost\n"
    assert lock.locked()
    lock.release()


def test_handles_pickle_and_hold_nothing_there(store: celeriac.Store) -> None:
    lock = store.lock("a", ttl=5, reentrant=True, timeout=2)
    again = pickle.loads(pickle.dumps(lock))
    assert (again.name, again.ttl, again.reentrant, again.timeout) == ("a", 5, True, 2)
    semaphore = pickle.loads(pickle.dumps(store.semaphore("s", 3)))
    assert (semaphore.name, semaphore.permits) == ("s", 3)
    leader = pickle.loads(pickle.dumps(store.leader("l", ttl=4)))
    assert (leader.name, leader.ttl, repr(leader)) == ("l", 4, "<Leader 'l'>")


def test_a_store_that_is_closed(connect: Callable[[], celeriac.Store]) -> None:
    store, other = connect(), connect()
    lock = store.lock("a")
    lock.acquire()
    errors: list[Exception] = []

    def wait() -> None:
        try:
            waiting.acquire()
        except celeriac.CeleriacError as error:
            errors.append(error)

    waiting = store.lock("a")
    thread = threading.Thread(target=wait)
    thread.start()
    until(lock.waiting)
    store.close()
    thread.join(LONG)
    assert "is closed" in str(errors[0])
    with pytest.raises(celeriac.ConfigurationError, match="is closed"):
        lock.release()
    assert other.lock("a").waiting() == 0
    assert other.lock("a").locked(), "with the last handle of the process it is given back"


def test_locks_are_not_evicted(memory: Callable[[str], celeriac.Store]) -> None:
    store = memory("4M")
    held = [store.lock(f"l{i}") for i in range(200)]
    for lock in held:
        lock.acquire()
    cache = store.cache()
    for i in range(200):
        cache.set(f"k{i}", "x" * 100_000)
    assert cache.stats().evictions > 0
    assert [lock.locked() for lock in held] == [True] * 200
    for lock in held:
        lock.release()
    assert store.locks() == []


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda s: s.lock(5), TypeError, "the name of a lock is a str, not int"),
        (lambda s: s.lock(""), celeriac.ConfigurationError, "1 to 1000 bytes, this one has 0"),
        (lambda s: s.lock("x" * 1001), ValueError, "1 to 1000 bytes, this one has 1001"),
        (lambda s: s.lock("\ud800"), UnicodeEncodeError, "surrogates not allowed"),
        (lambda s: s.lock("a", ttl=0), ValueError, "ttl=0: a finite number of seconds, above 0"),
        (lambda s: s.lock("a", ttl=-1), ValueError, "ttl=-1: a finite number of seconds"),
        (lambda s: s.lock("a", ttl=float("inf")), ValueError, "ttl=inf: a finite number"),
        (lambda s: s.lock("a", ttl="5"), TypeError, "ttl is a finite number of seconds"),
        (lambda s: s.lock("a", reentrant=1), TypeError, "reentrant is True or False, not int"),
        (lambda s: s.lock("a", timeout=-1), ValueError, "timeout=-1: a finite number"),
        (lambda s: s.lock("a", on_lost=print), ValueError, "on_lost= without ttl="),
        (lambda s: s.lock("a", ttl=1, on_lost=1), TypeError, "on_lost is a function or None"),
        (lambda s: s.lock("a").acquire(timeout=-1), ValueError, "timeout=-1: a finite number"),
        (lambda s: s.lock("a").acquire(timeout="1"), TypeError, "timeout is a finite number"),
        (lambda s: s.lock("a").acquire(1, False), ValueError, "which doesn't wait"),
        (lambda s: s.lock("a").acquire(blocking=0), TypeError, "blocking is True or False"),
        (lambda s: s.semaphore("a", 0), ValueError, "permits=0: an int from 1 to 65535"),
        (lambda s: s.semaphore("a", -1), ValueError, "permits=-1: an int from 1 to 65535"),
        (lambda s: s.semaphore("a", 65536), ValueError, "permits=65536: an int from 1 to 65535"),
        (lambda s: s.semaphore("a", "2"), TypeError, "permits is an int, not str"),
        (lambda s: s.semaphore("", 2), celeriac.ConfigurationError, "name of a semaphore has 1 to"),
        (lambda s: s.leader("a", ttl=0), ValueError, "ttl=0: a finite number"),
        (lambda s: s.leader(None), TypeError, "the name of a leader is a str, not NoneType"),
        (lambda s: s.leader("a").campaign(5), TypeError, "on_elected is a function, not int"),
        (lambda s: s.leader("a").campaign(print, print), ValueError, "on_lost= without ttl="),
    ],
)
def test_wrong_arguments(
    store: celeriac.Store, call: Callable[..., Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(store)
    assert store.locks() == []
