"""get_or_set of the Django backend: coalescing, failures, and what is deleted meanwhile."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import celeriac
from celeriac.django.cache import CeleriacCache
from celeriac.single_flight import Flights

Make = Callable[..., CeleriacCache]


def test_get_or_set_coalesces(backend: Make) -> None:
    calls, results = [], []

    def compute() -> str:
        calls.append(1)
        time.sleep(0.1)
        return "value"

    def ask() -> None:
        results.append(backend().get_or_set("key", compute, 60, wait=60))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["value"] * 20
    assert len(calls) == 1
    assert backend().ttl("key") == 60


@pytest.mark.parametrize("ignore", [False, True])
def test_who_waits_for_a_value_that_is_too_large(
    backend: Make, monkeypatch: pytest.MonkeyPatch, ignore: bool
) -> None:
    calls: list[int] = []
    waits = threading.Event()
    real = Flights.wait

    def wait(*arguments: Any) -> bool:
        waits.set()
        return real(*arguments)

    def compute() -> bytes:
        calls.append(1)
        assert waits.wait(60)
        return bytes(1 << 30)

    monkeypatch.setattr(Flights, "wait", wait)

    def ask() -> str:
        cache = backend(OPTIONS={"IGNORE_EXCEPTIONS": ignore})
        try:
            return str(len(cache.get_or_set("key", compute, 60, wait=60)))
        except celeriac.ValueTooLarge:
            return "too large"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ask)
        while not calls:
            time.sleep(0.001)
        second = pool.submit(ask)
        assert first.result(60) == second.result(60) == (str(1 << 30) if ignore else "too large")
    assert len(calls) == (2 if ignore else 1), "its error is handed on"


def test_what_is_set_and_deleted_while_it_is_computed_does_not_come_back(backend: Make) -> None:
    cache = backend()

    def compute() -> str:
        other = backend()
        other.set("key", "newer")
        assert other.delete("key")
        return "old"

    assert cache.get_or_set("key", compute, 60) == "old"
    assert cache.get("key") is None
    assert cache.get_or_set("key", "new", 60) == cache.get("key") == "new"


def test_get_or_set_options(backend: Make) -> None:
    cache = backend()
    assert cache.get_or_set("key", "old", 60, stale=100, tags=["t"], wait=1, early=1.0) == "old"
    assert cache.ttl("key") == 60

    def fails() -> None:
        raise OSError("away")

    full = cache.make_key("key")
    cache._at()._core.touch(full, 99)
    assert cache.get("key") is None
    assert cache.get_or_set("key", fails, 60, stale_on_error=100) == "old"
    cache.invalidate("t")
    with pytest.raises(OSError, match="away"):
        cache.get_or_set("key", fails, 60, stale_on_error=100)
    for tolerant in (cache, backend(OPTIONS={"IGNORE_EXCEPTIONS": True})):
        with pytest.raises(celeriac.DeadlockError, match="that computes 'key' asks"):
            tolerant.get_or_set("key", lambda each=tolerant: each.get_or_set("key", list))
    assert cache.get_or_set("zero", "value", 0) == "value"
    assert cache.get("zero") is None


@pytest.mark.parametrize("is_async", [False, True])
def test_get_or_set_without_a_store(backend: Make, is_async: bool) -> None:
    cache = backend(OPTIONS={"create": False, "IGNORE_EXCEPTIONS": True})
    calls = []

    def compute() -> str:
        calls.append(1)
        return "value"

    def get_or_set(default: Any) -> Any:
        if is_async:
            return asyncio.run(cache.aget_or_set("key", default))
        return cache.get_or_set("key", default)

    assert get_or_set(compute) == "value"
    assert len(calls) == 1
    assert get_or_set("plain") == "plain"
    assert cache.ignored_exceptions == 2

    def raises() -> None:
        raise celeriac.StoreNotFound("from the function")

    with pytest.raises(celeriac.StoreNotFound, match="from the function"):
        get_or_set(raises)


def test_get_or_set_of_a_value_that_does_not_fit(backend: Make) -> None:
    big = bytes(20 << 20)
    cache = backend(OPTIONS={"memory": "8M", "IGNORE_EXCEPTIONS": True})
    assert cache.get_or_set("key", lambda: big) == big
    assert cache.ignored_exceptions == 1
    with pytest.raises(celeriac.ValueTooLarge):
        backend(OPTIONS={"memory": "8M"}).get_or_set("key", lambda: big)


def test_the_warning_comes_once_and_names_the_caller(backend: Make) -> None:
    from django.core.cache.backends.base import CacheKeyWarning

    with pytest.warns(CacheKeyWarning) as caught:
        backend().get_or_set("a key", 1)
    assert [warning.filename for warning in caught] == [__file__]


# ---- deletions during a computation


def make_key(key: str, prefix: str, version: Any) -> str:
    return f"{prefix}#{version}#{key}"


@pytest.mark.parametrize(
    "how", ["delete", "adelete", "delete_many", "delete_pattern", "clear", "clear_prefix"]
)
@pytest.mark.parametrize("params", [{}, {"KEY_PREFIX": "p"}, {"KEY_FUNCTION": make_key}])
def test_what_is_deleted_meanwhile_does_not_come_back(
    backend: Make, how: str, params: dict[str, Any]
) -> None:
    cache, other = backend(**params), backend(**params)

    def compute() -> str:
        if how == "adelete":
            asyncio.run(other.adelete("key"))
        elif how == "delete_many":
            other.delete_many(["key"])
        else:
            getattr(other, how)(*(["key"] if how.startswith("delete") else []))
        return "old"

    assert cache.get_or_set("key", compute) == "old"
    assert cache.get("key") is None
    assert cache.get_or_set("key", lambda: "new") == "new"
    assert cache.get("key") == "new"
