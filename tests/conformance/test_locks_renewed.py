"""Leases that are renewed for as long as they are held: `renew=True`."""

from __future__ import annotations

import asyncio
import pickle
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac import aio

TTL = 5  # so that a machine may hold a process up for more than three seconds
Python = Callable[[str], "subprocess.Popen[str]"]

KINDS: dict[str, Callable[..., Any]] = {
    "lock": lambda store, **options: store.lock("a", **options),
    "reentrant": lambda store, **options: store.lock("a", reentrant=True, **options),
    "semaphore": lambda store, **options: store.semaphore("a", 1, **options),
    "leader": lambda store, **options: store.leader("a", **options),
}


def left(store: celeriac.Store) -> float:
    """What is left of the only lease; it must not end."""
    (one,) = store.locks()
    assert one.ttl is not None
    assert one.ttl > 0
    return one.ttl


def wait_for_renewal(store: celeriac.Store) -> None:
    before = left(store)
    while (now := left(store)) <= before:
        before = now
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_lease_is_renewed_while_it_is_held(store: celeriac.Store, kind: str) -> None:
    lock = KINDS[kind](store, ttl=TTL, renew=True)
    assert lock.renews
    with lock:
        token = lock.token
        wait_for_renewal(store)
        assert lock.token == token
    assert store.locks() == []
    with lock:  # once more
        wait_for_renewal(store)


def test_a_leader_whose_lease_is_renewed_leads(store: celeriac.Store) -> None:
    leader = store.leader("a", ttl=TTL, renew=True)
    leader.acquire()
    ends = time.monotonic() + TTL
    while time.monotonic() <= ends:
        left(store)
        assert leader.is_leader
        time.sleep(0.05)
    assert leader.is_leader  # beyond the first lease
    leader.release()


def test_asyncio(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            lock = store.lock("a", ttl=TTL, renew=True)
            assert lock.renews
            async with lock:
                await asyncio.to_thread(wait_for_renewal, store.sync)
            assert await store.locks() == []

    asyncio.run(main())


STOPPED = """
lost = []
{lock}
lock.acquire()
print(lock.token, flush=True)
sys.stdin.readline()
while not lost:
    time.sleep(0.01)
print(lost[0] is lock, flush=True)
try:
    lock.release()
except celeriac.LockLost as error:
    print(error)
"""


@pytest.mark.parametrize(
    "made",
    [
        'lock = store.lock("a", ttl=TTL, renew=True, on_lost=lost.append)',
        'lock = store.semaphore("a", 1, ttl=TTL, renew=True, on_lost=lost.append)',
    ],
)
def test_a_stopped_holder_is_followed_and_told(
    store: celeriac.Store, python: Python, made: str
) -> None:
    process = python(STOPPED.format(lock=made.replace("TTL", str(TTL))))
    assert process.stdout is not None
    assert process.stdin is not None
    token = int(process.stdout.readline())
    other = store.semaphore("a", 1) if "semaphore" in made else store.lock("a")
    assert not other.acquire(timeout=TTL * 1.2)  # it lives
    process.send_signal(signal.SIGSTOP)
    assert other.acquire(timeout=60)
    assert other.token is not None
    assert other.token > token
    process.send_signal(signal.SIGCONT)
    said, _ = process.communicate("\n", timeout=60)
    assert said.startswith("True\n")
    assert "'a'" in said
    assert other.locked()
    other.release()


def test_a_stopped_holder_under_asyncio(url: str, python: Python) -> None:
    process = python(
        """
import asyncio
from celeriac import aio
async def main():
    async with aio.connect(sys.argv[1]) as store:
        lost = threading.Event()
        lock = store.lock("a", ttl=4, renew=True, on_lost=lambda lock: lost.set())
        await lock.acquire()
        print("has it", flush=True)
        await asyncio.to_thread(lost.wait)
        try:
            await lock.release()
        except celeriac.LockLost:
            print("lost")
import threading
asyncio.run(main())
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "has it\n"
    process.send_signal(signal.SIGSTOP)

    async def main() -> None:
        async with aio.connect(url) as store, store.lock("a", timeout=60):
            process.send_signal(signal.SIGCONT)
            said, _ = await asyncio.to_thread(process.communicate)
            assert said == "lost\n"

    asyncio.run(main())


def test_a_holder_that_dies_is_followed_at_once(store: celeriac.Store, python: Python) -> None:
    process = python('store.lock("a", ttl=3600, renew=True).acquire()\nprint(1)\ntime.sleep(600)')
    assert process.stdout is not None
    process.stdout.readline()
    process.kill()
    assert store.lock("a").acquire(timeout=60)


class RenewedMeanwhile:
    """A core whose lock is about to be renewed between its release and the handle's knowing it."""

    def __init__(self, lock: Any) -> None:
        self._core, self._lock = lock.core, lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)

    def release(self, place: int) -> None:
        self._core.release(place)
        renewing = threading.Thread(
            target=self._lock._renew_for_holder, args=(place, self._lock.token or 0)
        )
        renewing.start()
        renewing.join(0.3)
        time.sleep(0.3)  # in which a loss would be told


@pytest.mark.parametrize("kind", ["lock", "reentrant"])
def test_a_release_is_no_loss(store: celeriac.Store, kind: str) -> None:
    lost: list[Any] = []
    lock = KINDS[kind](store, ttl=3600, renew=True, on_lost=lost.append)
    lock.acquire()
    lock.core = RenewedMeanwhile(lock)
    lock.release()
    assert lost == []
    assert store.locks() == []


def test_another_handle_of_a_reentrant_lock_ends_it(store: celeriac.Store) -> None:
    first = store.lock("a", ttl=TTL, renew=True, reentrant=True)
    second = store.lock("a", ttl=TTL, reentrant=True)
    first.acquire()
    assert second.acquire(timeout=0)
    first.release()
    wait_for_renewal(store)
    second.release()
    assert store.locks() == []


def test_what_may_not_be(store: celeriac.Store) -> None:
    for make in KINDS.values():
        with pytest.raises(ValueError, match="renew=True without ttl="):
            make(store, renew=True)
        with pytest.raises(TypeError, match="renew"):
            make(store, ttl=1, renew=1)
        again = pickle.loads(pickle.dumps(make(store, ttl=5, renew=True)))
        assert (again.ttl, again.renews) == (5, True)
