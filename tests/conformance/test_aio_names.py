"""asyncio: every public name of the package has a twin, with the same arguments, or a reason."""

from __future__ import annotations

import asyncio
import inspect
import pickle
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac import aio

TWINS: dict[type, type] = {
    celeriac.Cache: aio.AsyncCache,
    celeriac.Table: aio.AsyncTable,
    celeriac.Leader: aio.AsyncLeader,
    celeriac.Lock: aio.AsyncLock,
    celeriac.Message: aio.AsyncMessage,
    celeriac.Queue: aio.AsyncQueue,
    celeriac.Semaphore: aio.AsyncSemaphore,
    celeriac.Store: aio.AsyncStore,
    celeriac.Limiter: aio.AsyncLimiter,
    celeriac.Concurrency: aio.AsyncConcurrency,
}
INTERNAL = "for those who drive a call themselves, as the twin does"
LACKING: dict[type, dict[str, str]] = {
    celeriac.Cache: dict.fromkeys(
        ("check_values", "fill", "is_plain", "iter_steps", "look", "native_flights", "opened"),
        INTERNAL,
    ),
    celeriac.Queue: {
        "fileno": "a loop has get(), which does this",
        "waiter": "a loop has get(), which does this",
    },
    celeriac.Store: {"waiter": "a task for each queue, each with get()"},
}
for kind in (celeriac.Lock, celeriac.Semaphore, celeriac.Leader):
    LACKING[kind] = dict.fromkeys(
        (
            *("again", "core", "give_back", "keep", "kind", "lease", "left", "mine", "owner_now"),
            *("prolong", "refuse_to_wait_for", "seconds", "take_within", "too_late"),
            *(["check_campaign"] if kind is celeriac.Leader else []),
        ),
        INTERNAL,
    )
LACKING[celeriac.Table] = LACKING[celeriac.Cache]
WITHOUT_TWIN = {
    "Waiter": "for event loops that are not asyncio's",
    "CacheStats": "a value",
    "ConcurrencyInfo": "a value",
    "Consumer": "a value",
    "Counts": "a value",
    "Decision": "a value",
    "Slot": "giving it back waits for nothing",
    "Ended": "a value",
    "Holder": "a value",
    "LockInfo": "a value",
    "Peeked": "a value",
    "PrefixStats": "a value",
}
MORE = {"sync"}


def public(kind: type) -> dict[str, Any]:
    """The public names that a class has, its bases' included."""
    return {
        name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")
    }


def parameters(call: Callable[..., Any]) -> list[Any]:
    signature = inspect.signature(call)
    return [(p.name, p.kind, p.default) for p in list(signature.parameters.values())[1:]]


def differences(ours: type, theirs: type, lacking: dict[str, str]) -> list[str]:
    """What one has that the other hasn't, or has otherwise."""
    sync, twin = public(ours), public(theirs)
    found = [f"{name}: no twin" for name in sync if name not in twin and name not in lacking]
    found += [f"{name}: not in the original" for name in twin if name not in {*sync, *MORE}]
    found += [f"{name}: listed, and there" for name in lacking if name in twin]
    found += [f"{name}: listed, and nowhere" for name in lacking if name not in sync]
    for name in sync.keys() & twin.keys():
        if not callable(sync[name]) or not callable(twin[name]):
            if callable(sync[name]) != callable(twin[name]):
                found.append(f"{name}: one is a property")
        elif parameters(sync[name]) != parameters(twin[name]):
            found.append(f"{name}: other arguments")
        if not inspect.getdoc(twin[name]):
            found.append(f"{name}: no text")
    return sorted(found)


@pytest.mark.parametrize("kind", TWINS, ids=lambda kind: kind.__name__)
def test_every_name_has_a_twin(kind: type) -> None:
    assert differences(kind, TWINS[kind], LACKING.get(kind, {})) == []


def test_every_class_has_a_twin() -> None:
    kinds = {name: getattr(celeriac, name) for name in celeriac.__all__}
    classes = {
        name
        for name, kind in kinds.items()
        if isinstance(kind, type) and not issubclass(kind, BaseException)
    }
    assert classes == {kind.__name__ for kind in TWINS} | WITHOUT_TWIN.keys()
    assert parameters(celeriac.connect) == parameters(aio.connect)


def test_a_difference_is_found() -> None:
    class Ours:
        def same(self, a: int, *, b: int = 1) -> None:
            """Same."""

        def other(self, a: int) -> None:
            """Other."""

        def gone(self) -> None: ...

        def prop(self) -> None: ...

    class Theirs:
        def same(self, a: int, *, b: int = 1) -> None:
            """Same."""

        def other(self, b: int) -> None:
            """Other."""

        def extra(self) -> None: ...

        @property
        def prop(self) -> None:
            """Property."""

    assert differences(Ours, Theirs, {"same": "", "never": ""}) == [
        "extra: not in the original",
        "gone: no twin",
        "never: listed, and nowhere",
        "other: other arguments",
        "prop: one is a property",
        "same: listed, and there",
    ]


def test_the_rest_of_the_calls(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            cache = store.cache("c", ttl=60, max_entries=5)
            assert (cache.name, cache.ttl_default, cache.max_entries) == ("c", 60, 5)
            queue = await store.queue("q", max_deliveries=1)
            await queue.put("later", delay=1000)
            await queue.put_many(["a", "b"], priority=3)
            assert [p.body for p in await queue.ready()] == [b"a", b"b"]
            assert [p.body for p in await queue.delayed(5)] == [b"later"]
            assert await queue.get_many(0) == []
            for message in await queue.get_many(5):
                message.nack()
            assert [p.body for p in await queue.dead()] == [b"a", b"b"]
            assert (await queue.counts()).dead == 2
            assert await queue.dropped() == 0
            assert (queue.name, await store.queues(), await store.caches()) == ("q", ["q"], ["c"])
            assert await store.has_queue("q") is True
            assert await store.has_queue("other") is False
            assert len(await store.owners()) == 1
            assert store.path == store.sync.path
            again = pickle.loads(pickle.dumps(store))
            assert isinstance(again, aio.AsyncStore)
            assert again.url == store.url

    asyncio.run(main())


def test_messages_take_await_or_not(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            queue = store.queue("q")
            await queue.put_many(["a", "b", "c"], headers={"x": 1}, priority=3)
            first = await queue.get(0)
            assert first is not None
            assert (first.body, first.headers, first.priority) == (b"a", {"x": 1}, 3)
            assert (first.deliveries, first.redelivered, first.queue) == (1, False, queue)
            assert first.id == first.sync.id
            assert await first.ack() is None
            with pytest.raises(celeriac.NotOwner, match="acknowledged it already"):
                await first.ack()
            with pytest.raises(celeriac.NotOwner, match="acknowledged it already"):
                first.nack()
            second, third = await queue.get_many(2)
            assert await second.nack(delay=1000, reason="later") is None
            third.ack()
            counts = await queue.counts()
            assert (counts.delayed, counts.reserved, counts.done) == (1, 0, 2)

    asyncio.run(main())


def test_the_rest_of_a_queue(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            queue = store.queue("q", max_length=2, max_deliveries=1, keep_done=(5, None))
            first = await queue.put("a", dedup_key="k")
            assert await queue.put("b", dedup_key="k") == first
            second = await queue.put("b", timeout=5)
            with pytest.raises(celeriac.QueueFull):
                await queue.put("c", timeout=0.02)
            with pytest.raises(celeriac.QueueFull) as full:
                await queue.put_many(["c"])
            assert full.value.ids == []

            async def take() -> None:
                for _ in range(3):
                    message = await queue.get(5)
                    assert message is not None
                    await asyncio.sleep(0.01)
                    await message.ack()

            taking = asyncio.ensure_future(take())
            ids = await queue.put_many(["c", "d", "e"], timeout=20)
            assert len({first, second, *ids}) == 5
            await taking
            assert [e.body for e in await queue.done()] == [b"a", b"b", b"c"]
            assert (await queue.oldest_age() or -1) >= 0
            await queue.pause()
            assert queue.paused is True
            assert await queue.get(0.01) is None
            await queue.resume()
            message = await queue.get(5)
            assert message is not None
            assert message.reason is None
            await message.extend(1000)
            assert [c.reserved for c in await queue.consumers()] == [1]
            message.nack(reason="why")
            assert [d.reason for d in await queue.dead()] == [
                "max_deliveries=1 reached; given back: why"
            ]
            assert await queue.retry_dead() == 1
            assert await queue.cancel(ids[-1]) is True
            assert await queue.purge_dead() == 0

    asyncio.run(main())


def test_tables(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            table = await store.table("t", ttl=50)
            await table.set("k", 1)
            assert 49 < (await table.ttl("k") or 0) <= 50
            value, version = await table.get_versioned("k")
            assert value == 1
            assert await table.compare_and_set("k", version, 2) is True
            assert await table.compare_and_set("k", version, 3) is False
            assert await table.compare_and_delete("k", version) is False
            assert await table.items() == [("k", 2)]
            assert await store.tables() == ["t"]

    asyncio.run(main())


def test_waiting_for_a_change(url: str) -> None:
    async def main() -> None:
        async with aio.connect(url) as store:
            table = store.table("t")
            seen = await table.change_count("k")
            assert await table.wait_for_change("k", seen, 0.02) is False
            assert await table.wait_for_change("k", seen, 0) is False
            waits = [asyncio.create_task(table.wait_for_change("k", seen)) for _ in range(3)]
            await asyncio.sleep(0.05)
            threading.Timer(0.05, store.sync.table("t").set, ("k", 1)).start()
            assert await asyncio.wait_for(asyncio.gather(*waits), 60) == [True] * 3
            assert await table.wait_for_change("k", seen) is True
            seen = await table.change_count("k")
            task = asyncio.create_task(table.wait_for_change("k", seen))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(TypeError, match="seen is an int, not str"):
                await table.wait_for_change("k", "1")  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="timeout is a number of seconds or None"):
                await table.wait_for_change("k", seen, "1")  # type: ignore[arg-type]

    asyncio.run(main())


def test_the_module_is_there_when_it_is_named() -> None:
    code = """
        import sys, celeriac
        assert "celeriac.aio" not in sys.modules
        assert celeriac.aio.connect is sys.modules["celeriac.aio"].connect
        assert not hasattr(celeriac, "ajo")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
