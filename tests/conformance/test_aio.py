"""asyncio: the same calls, and a loop that goes on while they wait."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import celeriac
import celeriac.aio
from celeriac import Store, single_flight
from celeriac.aio import AsyncCache, AsyncStore

Python = Callable[[str], "subprocess.Popen[str]"]


@asynccontextmanager
async def ticking() -> AsyncIterator[list[float]]:
    """The longest times between two turns of the loop."""
    gaps = [0.0]

    async def tick() -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            gaps.append(time.monotonic() - before)

    task = asyncio.create_task(tick())
    try:
        yield gaps
    finally:
        task.cancel()


def test_calls(url: str) -> None:
    async def calls() -> None:
        threads = threading.active_count()
        async with celeriac.aio.connect(url) as store:
            cache = store.cache("a", ttl=60)
            await cache.set("k", 1)
            assert await cache.get("k") == 1
            assert await cache.add("k", 2) is False
            assert await cache.replace("k", 3) is True
            assert await cache.incr("k", 2) == 5
            assert await cache.decr("k") == 4
            assert 59 < (await cache.ttl("k") or 0) <= 60
            assert await cache.touch("k", 10) is True
            assert await cache.expire("k", 20) is True
            assert await cache.expire_at("k", time.time() + 30) is True
            assert await cache.persist("k") is True
            assert await cache.set_many({"a": 1, "b": 2}, tags=["t"]) == []
            assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2}
            assert sorted(await cache.keys()) == ["a", "b", "k"]
            assert [key async for key in cache.iter_keys("[ab]")] in (["a", "b"], ["b", "a"])
            await cache.invalidate("t")
            assert "a" not in cache
            assert await cache.delete_many(["a", "x"]) == 0
            assert await cache.delete_pattern("k*") == 1
            assert await cache.delete("k") is False
            assert (await cache.stats()).sets == 4
            await cache.clear()
            assert len(cache) == 0
            assert threading.active_count() == threads
        assert store.closed

    asyncio.run(calls())


def test_handles_may_be_awaited(url: str) -> None:
    async def calls() -> None:
        store = await celeriac.aio.connect(url)
        assert isinstance(store, AsyncStore)
        assert isinstance(await store.cache(), AsyncCache)
        assert "caches" in await store.stats()
        await store.close()

    asyncio.run(calls())


# ------------------------------------------------------------------ get_or_set


def test_a_hundred_tasks_call_the_function_once(url: str) -> None:
    calls = []

    async def compute() -> str:
        calls.append(1)
        await asyncio.sleep(0.1)
        return "value"

    async def main() -> None:
        async with celeriac.aio.connect(url) as store:
            cache = store.cache()
            threads = threading.active_count()
            tasks = [
                asyncio.create_task(cache.get_or_set("k", compute, wait=60)) for _ in range(100)
            ]
            await asyncio.sleep(0.05)
            assert threading.active_count() <= threads + 2  # one sleeps for all of them
            assert await asyncio.gather(*tasks) == ["value"] * 100
            assert store.sync.table(single_flight.TABLE).items() == []

    asyncio.run(main())
    assert len(calls) == 1


def test_what_may_be_given(url: str) -> None:
    loops_thread = threading.get_ident()

    def blocking() -> int:
        assert threading.get_ident() != loops_thread
        return 2

    async def coroutine() -> int:
        assert threading.get_ident() == loops_thread
        return 3

    class Callable_:
        async def __call__(self) -> int:
            return 4

    async def main() -> None:
        async with celeriac.aio.connect(url) as store:
            cache = store.cache()
            assert await cache.get_or_set("value", 1) == 1
            assert await cache.get_or_set("function", blocking) == 2
            assert await cache.get_or_set("async", coroutine) == 3
            assert await cache.get_or_set("object", Callable_()) == 4
            assert await cache.get_or_set("awaitable", coroutine()) == 3
            assert await cache.get_or_set("awaitable", coroutine()) == 3  # closed, not forgotten
            assert await cache.get_or_set("returned", lambda: coroutine_elsewhere()) == 5

    async def coroutine_elsewhere() -> int:
        return 5

    asyncio.run(main())


COMPUTES = """
def compute():
    print("computing", flush=True)
    sys.stdin.readline()
    return "theirs"
print(store.cache().get_or_set("k", compute), flush=True)
"""


@pytest.mark.parametrize("end", ["answer", "death"])
def test_the_loop_goes_on_while_another_process_computes(
    url: str, python: Python, end: str
) -> None:
    process = python(COMPUTES)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"

    async def main() -> None:
        async with celeriac.aio.connect(url) as store, ticking() as gaps:
            asked = asyncio.create_task(store.cache().get_or_set("k", lambda: "ours", wait=60))
            while len(gaps) < 50:  # turns of the loop while it waits
                await asyncio.sleep(0.001)
            assert not asked.done()
            if end == "answer":
                process.stdin.write("\n")
                process.stdin.flush()
                assert await asked == "theirs"
            else:
                process.kill()
                assert await asked == "ours"

    asyncio.run(main())


def test_waiting_ends_in_time(url: str, python: Python) -> None:
    process = python(COMPUTES)
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"

    async def main() -> None:
        async with celeriac.aio.connect(url) as store:
            cache = store.cache()
            long = asyncio.create_task(cache.get_or_set("k", lambda: "long", wait=60))
            await asyncio.sleep(0.05)
            assert await cache.get_or_set("k", lambda: "short", wait=0.1) == "short"
            long.cancel()

    asyncio.run(main())


def test_a_cancelled_task_gives_its_flight_back(url: str) -> None:
    async def main() -> None:
        async with celeriac.aio.connect(url) as store:
            cache = store.cache()
            task = asyncio.create_task(cache.get_or_set("k", lambda: asyncio.sleep(60)))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await cache.get_or_set("k", lambda: "value", wait=60) == "value"

    asyncio.run(main())


def test_the_function_asks_for_its_own_key(url: str) -> None:
    async def main() -> None:
        async with celeriac.aio.connect(url) as store:
            cache = store.cache()

            async def compute() -> Any:
                return await asyncio.create_task(cache.get_or_set("k", compute))

            def in_a_thread() -> Any:
                return cache.sync.get_or_set("k", lambda: 1)

            for function in (compute, in_a_thread):
                with pytest.raises(celeriac.DeadlockError):
                    await cache.get_or_set("k", function)
            assert await cache.get_or_set("k", lambda: "value") == "value"

    asyncio.run(main())


def test_stale_and_failing(url: str) -> None:
    async def fails() -> None:
        raise OSError("away")

    async def main() -> None:
        async with celeriac.aio.connect(url) as store:
            cache = store.cache()
            with pytest.raises(OSError, match="away"):
                await cache.get_or_set("k", fails)
            await cache.get_or_set("k", "old", 60, stale=100)
            cache.sync._core.touch("k", 99)
            go_on = asyncio.Event()

            async def compute() -> str:
                await go_on.wait()
                return "new"

            task = asyncio.create_task(cache.get_or_set("k", compute, 60, stale=100))
            await asyncio.sleep(0.01)
            assert await cache.get_or_set("k", fails, 60, stale=100) == "old"
            go_on.set()
            assert await task == "new"
            cache.sync._core.touch("k", 99)
            assert await cache.get_or_set("k", fails, 60, stale_on_error=100) == "new"

    asyncio.run(main())


def test_walks_let_others_run(store: Store, url: str) -> None:
    store.cache().set_many({f"k{i}": i for i in range(3000)})

    async def main() -> None:
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with celeriac.aio.connect(url) as other:
            turning = asyncio.create_task(turn())
            assert len(await other.cache().keys("k*")) == 3000
            seen = turns
            assert seen > 2
            assert await other.cache().delete_pattern("k*", itersize=100) == 3000
            assert turns - seen > 20
            turning.cancel()

    asyncio.run(main())


# ------------------------------------------------------------------ queues


def test_queue(store: Store, url: str) -> None:
    async def main() -> None:
        async with celeriac.aio.connect(url) as other, ticking():
            queue = other.queue("q")
            assert await queue.get(timeout=0) is None
            assert await queue.get(timeout=0.02) is None
            waiting = asyncio.create_task(queue.get())
            await asyncio.sleep(0.02)
            assert not waiting.done()
            store.queue("q").put(b"one")
            message = await waiting
            assert message is not None
            assert message.body == b"one"
            message.ack()
            await queue.put_many([b"2", b"3"])
            assert [m.body for m in await queue.get_many(5)] == [b"2", b"3"]

    asyncio.run(main())


def test_a_cancelled_get_takes_no_message(store: Store, url: str) -> None:
    async def main() -> None:
        async with celeriac.aio.connect(url) as other:
            queue = other.queue("q")
            task = asyncio.create_task(queue.get())
            await asyncio.sleep(0.02)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await queue.put(b"one", delay=0.05)
            message = await queue.get(timeout=30)
            assert message is not None
            assert message.body == b"one"

    asyncio.run(main())
