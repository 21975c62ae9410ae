"""Caches: what is deleted while get_or_set computes it does not come back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from celeriac import Cache, Store
from celeriac.cache_entries import CacheEntries


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache("filled")


DELETIONS: dict[str, Callable[[Cache], object]] = {
    "delete": lambda cache: cache.delete("k"),
    "delete_many": lambda cache: cache.delete_many(["other", "k"]),
    "ttl of zero": lambda cache: cache.set("k", 1, 0),
    "clear": lambda cache: cache.clear(),
    "delete_pattern": lambda cache: cache.delete_pattern("k*"),
    "set and delete": lambda cache: (cache.set("k", 1), cache.delete("k")),
}


@pytest.mark.parametrize("how", DELETIONS)
@pytest.mark.parametrize("stale", [False, True])
def test_what_is_deleted_meanwhile_does_not_come_back(
    cache: Cache, store: Store, how: str, stale: bool
) -> None:
    options: dict[str, Any] = {"stale": 600}
    if stale:
        cache.get_or_set("k", lambda: "stale", 0.001, **options)
        time.sleep(0.01)

    def compute() -> str:
        DELETIONS[how](store.cache("filled"))  # another changes what we have just read
        return "old"

    assert cache.get_or_set("k", compute, 600, **options) == "old"
    assert cache.get("k") is None
    assert cache.get_or_set("k", lambda: "new", **options) == "new"
    assert cache.get("k") == "new"


def test_what_is_deleted_while_it_is_stored(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(*arguments: Any) -> bool:
        stored = real(*arguments)
        if arguments[1] == "k":
            flights = cache._entries.shared.flights
            flights.spoil(flights.place(cache.name, "k"))  # delete() has begun
        return stored

    real = CacheEntries.add
    monkeypatch.setattr(CacheEntries, "add", add)
    assert cache.get_or_set("k", lambda: "old") == "old"
    assert "k" not in cache
    assert cache.get_or_set("other", lambda: "here") == "here"


def test_another_key_or_cache_that_is_deleted_spoils_nothing(cache: Cache, store: Store) -> None:
    def compute() -> str:
        cache.delete("other")
        cache.delete_pattern("other*")
        store.cache("another").delete("k")
        store.cache("another").clear()
        return "computed"

    assert cache.get_or_set("k", compute) == "computed"
    assert cache.get("k") == "computed"


def test_who_waits_for_what_was_deleted_computes_anew(cache: Cache) -> None:
    started, deleted = threading.Event(), threading.Event()

    def old() -> str:
        started.set()
        assert deleted.wait(60)
        return "old"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_set, "k", old, wait=60)
        assert started.wait(60)
        second = pool.submit(cache.get_or_set, "k", lambda: "new", wait=60)
        cache.delete("k")
        assert second.result(60) == "new"
        deleted.set()
        assert first.result(60) == "old", "but it isn't stored"
    assert cache.get("k") == "new"
