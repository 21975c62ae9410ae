"""The async calls: they stay on the event loop's thread, and mean what the sync ones mean."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache.backends.base import BaseCache, CacheKeyWarning
from django.utils.asyncio import async_unsafe

from celeriac.django.cache import CeleriacCache

Make = Callable[..., CeleriacCache]


def test_every_sync_call_has_an_async_one_of_ours() -> None:
    names = [name for name in vars(BaseCache) if "a" + name in vars(BaseCache)]
    assert len(names) >= 16
    names += ["ttl", "pttl", "persist", "expire", "pexpire", "expire_at", "pexpire_at"]
    for name in names:
        assert "a" + name in vars(CeleriacCache), name


def test_calls_stay_on_the_event_loops_thread(backend: Make) -> None:
    cache = backend()
    threads = set()

    def key_func(key: str, prefix: str, version: Any) -> str:
        threads.add(threading.get_ident())
        return f"{prefix}:{version}:{key}"

    cache.key_func = key_func

    async def calls() -> None:
        await cache.aset("key", 1, 20)
        assert await cache.aget("key") == 1
        assert await cache.aadd("key", 2) is False
        assert await cache.atouch("key", 30) is True
        assert await cache.attl("key") == 30
        assert await cache.aincr("key", 5) == 6
        assert await cache.adecr("key") == 5
        assert await cache.ahas_key("key") is True
        assert await cache.aset_many({"a": 1, "b": 2}) == []
        assert await cache.aget_many(["a", "b", "c"]) == {"a": 1, "b": 2}
        assert await cache.adelete_many(["a", "c"]) == 1
        assert await cache.adelete_many([]) is None
        assert await cache.aincr_version("key") == 2
        assert await cache.adecr_version("key", version=2) == 1
        assert await cache.apersist("key") is True
        assert await cache.apttl("key") is None
        assert await cache.aexpire("key", 60) is True
        assert await cache.apexpire("key", 50_000) is True
        assert await cache.attl("key") == 50
        assert await cache.aexpire_at("key", time.time() + 100) is True
        assert await cache.apexpire_at("key", (time.time() + 100) * 1000) is True
        assert await cache.aset("key", 1, nx=True) is False
        assert await cache.aget_or_set("key", 9) == 5
        assert await cache.adelete("key") is True
        assert await cache.aadd("tagged", 1, tags=["t"]) is True
        assert await cache.aset_many({"another": 1}, tags=["t"]) == []
        await cache.ainvalidate("t")
        assert await cache.aget_many(["tagged", "another"]) == {}
        assert await cache.aincr("key", ignore_key_check=True) == 1
        await cache.aclear()
        assert await cache.aget("b", "gone") == "gone"
        await cache.aclose()

    asyncio.run(calls())
    assert threads == {threading.get_ident()}


def test_aget_or_set_takes_values_functions_and_coroutines(backend: Make) -> None:
    cache = backend()
    loops_thread = threading.get_ident()

    def blocking() -> str:
        assert threading.get_ident() != loops_thread, "a plain function may block"
        return "function"

    async def coroutine() -> str:
        assert threading.get_ident() == loops_thread
        return "coroutine"

    async def calls() -> None:
        assert await cache.aget_or_set("value", "value") == "value"
        assert await cache.aget_or_set("function", blocking) == "function"
        assert await cache.aget_or_set("coroutine", coroutine) == "coroutine"
        assert await cache.aget_or_set("returned", lambda: coroutine()) == "coroutine"
        assert await cache.aget_or_set("none", None) is None
        assert await cache.aget("none", "default") is None
        assert await cache.aget_or_set("short", "value", 7) == "value"

    asyncio.run(calls())
    assert cache.get("coroutine") == "coroutine"
    assert cache.ttl("short") == 7


def test_aget_or_set_returns_what_another_added_meanwhile(backend: Make) -> None:
    cache = backend()

    async def slow() -> str:
        cache.set("key", "theirs")
        return "ours"

    assert asyncio.run(cache.aget_or_set("key", slow)) == "theirs"


class AsksTheDatabase:
    """Like a queryset: pickling it runs what Django forbids on an event loop."""

    @async_unsafe
    def __getstate__(self) -> dict[str, int]:
        return {"rows": 3}


@pytest.mark.parametrize("ignore", [False, True])
def test_a_value_that_asks_the_database_is_pickled_in_a_thread(backend: Make, ignore: bool) -> None:
    cache = backend(OPTIONS={"IGNORE_EXCEPTIONS": ignore})

    async def calls() -> None:
        assert await cache.aset("key", AsksTheDatabase()) is True
        assert (await cache.aget("key")).rows == 3
        assert await cache.aadd("added", AsksTheDatabase()) is True
        assert await cache.aset_many({"many": AsksTheDatabase()}) == []

    asyncio.run(calls())
    assert len(cache.get_many(["key", "added", "many"])) == 3
    assert cache.ignored_exceptions == 0


def test_the_warning_about_a_key_names_the_callers_file(backend: Make) -> None:
    cache = backend()

    async def calls() -> None:
        await cache.aget_many(["a key"])
        await cache.aset_many({"a key": 1})
        await cache.aget_or_set("a key", 1)

    with pytest.warns(CacheKeyWarning) as caught:
        asyncio.run(calls())
    assert {warning.filename for warning in caught} == {__file__}
