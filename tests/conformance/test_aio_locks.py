"""Locks under asyncio: each task is an owner, the loop never sleeps, a cancelled task holds
nothing."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import celeriac
from celeriac import aio

Python = Callable[[str], "subprocess.Popen[str]"]


async def until(true: Callable[[], Awaitable[Any]]) -> None:
    async def wait() -> None:
        while not await true():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(wait(), 60)


def test_acquire_and_release(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            lock = await store.lock("a", timeout=0.01)
            assert (lock.name, lock.ttl, lock.timeout, lock.reentrant) == ("a", None, 0.01, False)
            assert (lock.on_lost, repr(lock)) == (None, "<AsyncLock 'a'>")
            async with lock as entered:
                assert entered is lock
                assert await lock.locked()
                assert lock.owner is not None
                assert lock.owner.token == lock.token
                assert [h.token for h in await lock.holders()] == [lock.token]
                assert len(await store.locks()) == 1
                other = store.lock("a")
                assert await other.acquire(blocking=False) is False
                assert await other.acquire(timeout=0.01) is False
                assert await other.waiting() == 0
                with pytest.raises(celeriac.NotOwner):
                    await other.release()
                with pytest.raises(celeriac.LockTimeout):
                    await asyncio.create_task(lock.__aenter__())
            assert await lock.locked() is False
            with pytest.raises(ZeroDivisionError):
                async with lock:
                    raise ZeroDivisionError

    asyncio.run(main())


def test_tasks_are_owners(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            lock = store.lock("a", reentrant=True)
            async with lock, lock:
                task = asyncio.create_task(lock.acquire(blocking=False))
                assert await task is False
                with pytest.raises(celeriac.NotOwner):
                    await asyncio.create_task(lock.release())
                token = lock.token
                await lock.acquire()
                assert lock.token == token
                await lock.release()
            assert not await lock.locked()
            plain = store.lock("b")
            async with plain:
                with pytest.raises(celeriac.DeadlockError):
                    await plain.acquire()

    asyncio.run(main())


def test_first_come_first_served(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            lock, order = store.lock("a"), []

            async def wait(number: int) -> None:
                async with store.lock("a"):
                    order.append(number)
                    await asyncio.sleep(0)

            await lock.acquire()
            tasks = [asyncio.create_task(wait(number)) for number in range(10)]
            await until(lambda: _is(lock.waiting(), 10))
            await lock.release()
            await asyncio.gather(*tasks)
            assert order == list(range(10))

    asyncio.run(main())


async def _is(value: Awaitable[Any], wanted: Any) -> bool:
    return await value == wanted


def test_a_cancelled_task_holds_nothing(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            lock = store.lock("a")
            await lock.acquire()
            for _ in range(5):
                task = asyncio.create_task(store.lock("a").acquire())
                await until(lambda: _is(lock.waiting(), 1))
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await lock.waiting() == 0
            await lock.release()
            assert await store.lock("a").acquire(blocking=False)

    asyncio.run(main())


def test_cancelled_as_it_is_granted(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            for _ in range(20):
                lock = store.lock("a")
                await lock.acquire()
                task = asyncio.create_task(store.lock("a").acquire())
                await until(lambda lock=lock: _is(lock.waiting(), 1))
                await lock.release()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                assert await store.locks() == []

    asyncio.run(main())


def test_the_dead_hold_nothing(url: str, python: Python) -> None:
    process = python("store.lock('a').acquire(); print('held', flush=True); time.sleep(100)")
    assert process.stdout is not None
    process.stdout.readline()

    async def main() -> None:
        async with aio.connect(url) as store:
            lock = store.lock("a")
            task = asyncio.create_task(lock.acquire())
            await until(lambda: _is(lock.waiting(), 1))
            process.kill()
            assert await asyncio.wait_for(task, 60)

    asyncio.run(main())


def test_leases(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            lock = store.lock("a", ttl=0.02)
            await lock.acquire()
            assert await store.lock("a").acquire(timeout=60)
            with pytest.raises(celeriac.LockLost):
                await lock.release()
            other = store.lock("b", ttl=0.02)
            await other.acquire()
            await other.renew(1000)
            await asyncio.sleep(0.05)
            await other.release()

    asyncio.run(main())


def test_semaphores(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            semaphore = await store.semaphore("s", 2)
            assert semaphore.permits == 2
            inside: list[int] = []
            most = 0

            async def work(number: int) -> None:
                nonlocal most
                async with store.semaphore("s", 2):
                    inside.append(number)
                    most = max(most, len(inside))
                    await asyncio.sleep(0.002)
                    inside.remove(number)

            await asyncio.gather(*(work(number) for number in range(10)))
            assert most == 2
            assert not await semaphore.locked()

    asyncio.run(main())


def test_leaders(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            leader, other = await store.leader("l"), store.leader("l")
            async with other:
                assert other.is_leader
                elected: list[int] = []

                async def on_elected(token: int) -> None:
                    elected.append(token)

                await leader.campaign(on_elected)
                await until(lambda: _is(other.waiting(), 1))
                with pytest.raises(RuntimeError, match="under way already"):
                    await leader.campaign(on_elected)
                await leader.release()
                assert await other.waiting() == 0
                await leader.campaign(on_elected)
            await until(lambda: _is(asyncio.sleep(0, elected != []), True))
            assert leader.is_leader
            assert elected == [leader.token]
            await leader.release()
            rounds = 0
            async with contextlib.aclosing(aiter(leader)) as terms:
                async for token in terms:
                    assert token == leader.token
                    rounds += 1
                    if rounds == 3:
                        break
            assert not await leader.locked()

    asyncio.run(main())
