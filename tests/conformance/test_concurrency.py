"""Concurrency limits: at most so many at once, in the whole store."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import threading
import time
from collections.abc import Callable

import pytest

import celeriac
from celeriac import aio

HOLD = (
    "slots = [store.concurrency('c', 3).acquire() for _ in range({n})]\n"
    "print('in', flush=True)\n"
    "sys.stdin.readline()\n"
)


def test_as_many_as_the_limit(store: celeriac.Store) -> None:
    c = store.concurrency("c", 2)
    first, second, third = (c.acquire(timeout=0) for _ in range(3))
    assert (bool(first), bool(second), bool(third)) == (True, True, False)
    assert (c.in_use(), c.limit) == (2, 2)
    with pytest.raises(celeriac.LockTimeout, match="within 0 s: 2 of 2 are in use"), third:
        pytest.fail("there is no slot")
    first.release()
    assert not first
    with pytest.raises(celeriac.NotOwner, match="'c' isn't held"):
        first.release()
    with pytest.raises(celeriac.NotOwner):
        third.release()
    with c.acquire(timeout=0) as slot:
        assert slot
        assert c.in_use() == 2
    assert not slot
    assert c.in_use() == 1
    with second:
        second.release()  # inside: the end has nothing left to do
    assert c.in_use() == 0


def test_with(store: celeriac.Store) -> None:
    c = store.concurrency("c", 2)
    with c, c:
        assert not c.acquire(timeout=0)
    with pytest.raises(ZeroDivisionError), c:
        raise ZeroDivisionError
    assert c.in_use() == 0


def test_names_and_handles(store: celeriac.Store, connect: Callable[..., celeriac.Store]) -> None:
    slot = store.concurrency("c", 1).acquire()
    other = connect().concurrency("c", 1)
    assert not other.acquire(timeout=0.01)
    assert connect().concurrency("another", 1).acquire(timeout=0)
    slot.release()
    again = pickle.loads(pickle.dumps(other))
    assert repr(again) == "<Concurrency 'c'>"
    assert again.acquire(timeout=0)
    assert other.in_use() == 1


def test_the_limit_may_change(store: celeriac.Store) -> None:
    c = store.concurrency("c", 3)
    slots = [c.acquire(0) for _ in range(3)]
    store.concurrency("c", 2)
    assert c.limit == 2
    slots[0].release()
    assert not c.acquire(0)
    slots[1].release()
    assert c.acquire(0)
    got: list[celeriac.Slot] = []
    waiter = threading.Thread(target=lambda: got.append(c.acquire(60)))
    waiter.start()
    store.concurrency("c", 5)  # wakes him
    waiter.join(60)
    assert got[0]


def test_who_waits_is_woken(store: celeriac.Store) -> None:
    c = store.concurrency("c", 1)
    slot = c.acquire()
    threading.Timer(0.05, slot.release).start()
    with c.acquire(timeout=60):
        pass
    slot = c.acquire()
    began = time.monotonic()
    assert not c.acquire(timeout=0.1)
    assert time.monotonic() - began >= 0.1


def test_never_more_over_processes(
    store: celeriac.Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    code = (
        "c, table = store.concurrency('c', 2), store.table('t')\n"
        "for _ in range(150):\n"
        "    with c.acquire(timeout=60):\n"
        "        now = table.incr('inside')\n"
        "        if now > 2: print('too many', now)\n"
        "        time.sleep(0.0002)\n"
        "        table.decr('inside')\n"
        "print('done')\n"
    )
    store.table("t").set("inside", 0)
    workers = [python(code) for _ in range(4)]
    assert [worker.communicate()[0] for worker in workers] == ["done\n"] * 4
    assert store.concurrency("c", 2).in_use() == 0


def test_slots_of_the_dead_come_back_to_who_waits(
    store: celeriac.Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    c = store.concurrency("c", 3)
    late = []
    for _ in range(5):
        victim = python(HOLD.format(n=3))
        assert victim.stdout is not None
        assert victim.stdout.readline() == "in\n"
        got: list[float] = []

        def wait(got: list[float] = got) -> None:
            with c.acquire(timeout=60):
                got.append(time.monotonic())

        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.1)
        killed = time.monotonic()
        victim.kill()
        waiter.join(60)
        late.append(got[0] - killed)
    # A waiter that was never told would have slept for the whole minute.
    assert sorted(late)[2] < 5
    assert c.in_use() == 0


def test_slots_of_one_that_closes_come_back(
    store: celeriac.Store, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    worker = python(HOLD.format(n=2) + "store.close()\nprint('closed', flush=True)\ntime.sleep(60)")
    assert worker.stdout is not None
    assert worker.stdin is not None
    assert worker.stdout.readline() == "in\n"
    assert store.concurrency("c", 3).in_use() == 2
    worker.stdin.write("\n")
    worker.stdin.flush()
    assert worker.stdout.readline() == "closed\n"
    assert store.concurrency("c", 3).in_use() == 0


def test_a_forked_child_holds_nothing_of_its_parents(store: celeriac.Store) -> None:
    c = store.concurrency("c", 2)
    slot = c.acquire()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with slot if slot else c.acquire(timeout=0):  # one of its own
                pass
            try:
                slot.release()
            except celeriac.NotOwner:
                status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert slot
    assert c.in_use() == 1
    slot.release()
    assert c.in_use() == 0


def test_closing_wakes_who_waits(connect: Callable[..., celeriac.Store]) -> None:
    store = connect()
    c = store.concurrency("c", 1)
    slot = c.acquire()
    failed: list[Exception] = []

    def wait() -> None:
        try:
            c.acquire(timeout=60)
        except celeriac.CeleriacError as error:
            failed.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    time.sleep(0.05)
    store.close()
    waiter.join(60)
    assert "closed" in str(failed[0])
    with pytest.raises(celeriac.ConfigurationError, match="closed"):
        slot.release()


def test_many_names(store: celeriac.Store) -> None:
    kept = store.concurrency("kept", 1).acquire()
    early = store.concurrency("early", 2)
    for i in range(1500):  # one for each client of a site
        with store.concurrency(f"client:{i}", 4).acquire(timeout=0):
            pass
    with early.acquire(timeout=0), early.acquire(timeout=0):
        assert not early.acquire(timeout=0)
    assert not store.concurrency("kept", 1).acquire(timeout=0)
    kept.release()


def test_async(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            c = await store.concurrency("c", limit=2)
            inside = most = 0

            async def work() -> None:
                nonlocal inside, most
                async with c.acquire(timeout=60) as slot:
                    assert slot
                    inside += 1
                    most = max(most, inside)
                    await asyncio.sleep(0.005)
                    inside -= 1

            await asyncio.gather(*(work() for _ in range(10)))
            assert most == 2
            assert (c.name, c.limit, await c.in_use()) == ("c", 2, 0)
            first, second = await c.acquire(), await c.acquire(0)
            assert first
            third = await c.acquire(timeout=0.02)
            assert not third
            with pytest.raises(celeriac.LockTimeout):
                async with c.acquire(timeout=0.02):
                    pytest.fail("there is no slot")
            task = asyncio.create_task(work())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            first.release()
            second.release()
            await asyncio.sleep(0.05)
            assert await c.in_use() == 0
            with pytest.raises(TypeError, match="timeout is a number"):
                c.acquire(timeout="1")  # type: ignore[arg-type]

    asyncio.run(main())


def test_wrong_arguments(store: celeriac.Store) -> None:
    for limit in (0, -1, 65537, 2**40):
        with pytest.raises(celeriac.ConfigurationError, match="1 to 65536 at once"):
            store.concurrency("c", limit)
    for wrong in ("5", 5.0, None, True):
        with pytest.raises(TypeError, match="limit is an int"):
            store.concurrency("c", wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the name of a concurrency limit is a str"):
        store.concurrency(b"c", 1)  # type: ignore[arg-type]
    for name in ("", "x" * 257):
        with pytest.raises(celeriac.ConfigurationError, match="1 to 256 bytes"):
            store.concurrency(name, 1)
    with pytest.raises(TypeError, match="timeout is a number"):
        store.concurrency("c", 1).acquire(timeout="1")  # type: ignore[arg-type]
