"""Caches: time to live. What has expired is gone for every call; nobody waits to see it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from celeriac import Cache, Store, cached

SOON = 0.03


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache()


def after(seconds: float) -> None:
    time.sleep(seconds + 0.005)


def about(cache: Cache, key: str, seconds: float) -> bool:
    left = cache.ttl(key)
    return left is not None and seconds - 5 < left <= seconds


def test_default_ttl(store: Store) -> None:
    store.cache().set("k", 1)
    assert about(store.cache(), "k", 300)
    store.cache(ttl=50).set("k", 1)
    assert about(store.cache(), "k", 50)
    store.cache(ttl=None).set("k", 1)
    assert store.cache().ttl("k") is None
    store.cache(ttl=0).set("k", 1)
    assert "k" not in store.cache()


def test_default_ttl_is_that_of_each_call(store: Store) -> None:
    cache = store.cache(ttl=50)
    calls: list[Callable[[], object]] = [
        lambda: cache.set("k", 1),
        lambda: cache.replace("k", 1),
        lambda: cache.touch("k"),
        lambda: cache.set_many({"k": 1}),
    ]
    for call in calls:
        cache.set("k", 0, None)
        call()
        assert about(cache, "k", 50)
    cache.delete("k")
    cache.add("k", 1)
    assert about(cache, "k", 50)


def test_set_forgets_the_old_expiry(cache: Cache) -> None:
    cache.set("k", 1, 1000)
    cache.set("k", 2, 10)
    assert about(cache, "k", 10)
    cache.set("k", 2, None)
    assert cache.ttl("k") is None


def test_ttl_of_a_key_just_set(cache: Cache) -> None:
    begin = time.monotonic()
    cache.set("k", 1, 10)
    left = cache.ttl("k")
    assert left is not None
    assert begin + 10 - time.monotonic() - 0.001 <= left <= 10


@pytest.mark.parametrize("days", [0.5, 1, 7, 30, 365, 2 * 365, 10 * 365, 100 * 365])
def test_long_ttls_are_exact(cache: Cache, days: float) -> None:
    """To a second up to two years, and to one part in fifty million beyond."""
    seconds = days * 86_400
    off = max(1.0, seconds / 50e6)
    calls: list[Callable[[], object]] = [
        lambda: cache.set("k", 1, seconds),
        lambda: cache.touch("k", seconds),
        lambda: cache.expire_at("k", time.time() + seconds),
    ]
    for call in calls:
        cache.set("k", 0, 5)
        begin = time.monotonic()
        call()
        left = cache.ttl("k")
        assert left is not None
        assert seconds - off - (time.monotonic() - begin) <= left <= seconds + off


def test_expired_is_gone_for_every_call(cache: Cache) -> None:
    calls: list[tuple[Callable[[], object], object]] = [
        (lambda: cache.get("k", "gone"), "gone"),
        (lambda: "k" in cache, False),
        (lambda: cache.get_many(["k"]), {}),
        (lambda: cache.replace("k", 2), False),
        (lambda: cache.touch("k", 50), False),
        (lambda: cache.expire("k", 50), False),
        (lambda: cache.persist("k"), False),
        (lambda: cache.delete("k"), False),
        (lambda: cache.delete_many(["k"]), 0),
    ]
    for call, expected in calls:
        cache.set("k", 1, SOON)
        after(SOON)
        assert call() == expected
        assert "k" not in cache
    for failing, error in (
        (lambda: cache.ttl("k"), KeyError),
        (lambda: cache.incr("k"), ValueError),
        (lambda: cache.incr("k", 2**70), ValueError),
    ):
        cache.set("k", 1, SOON)
        after(SOON)
        with pytest.raises(error):
            failing()
    cache.set("k", 1, SOON)
    after(SOON)
    assert cache.add("k", 2) is True
    assert cache.get("k") == 2


def test_it_is_there_until_it_expires(cache: Cache) -> None:
    for ttl in (0.2, 2, 20):  # on a busy machine a moment may pass without a look
        begin = time.monotonic()
        cache.set("k", 1, ttl)
        seen = 0
        while cache.get("k") == 1:
            seen += 1
            assert time.monotonic() - begin < ttl + 60
        assert time.monotonic() - begin >= ttl
        if seen > 0:
            return
    raise AssertionError("it was never there")


@pytest.mark.parametrize("ttl", [0, -1, 0.0, -0.5, -math.inf, False, Decimal(0)])
def test_zero_or_less_is_expired_at_once(cache: Cache, ttl: Any) -> None:
    cache.set("k", 1, ttl)
    assert "k" not in cache
    cache.set("k", 1, None)
    cache.set("k", 2, ttl)
    assert "k" not in cache
    assert cache.add("k", 1, ttl) is True
    assert "k" not in cache
    cache.set("k", 1, None)
    assert cache.add("k", 2, ttl) is False
    assert cache.get("k") == 1
    assert cache.replace("k", 2, ttl) is True
    assert "k" not in cache
    assert cache.replace("k", 2, ttl) is False
    for call in (cache.touch, cache.expire):
        cache.set("k", 1, None)
        assert call("k", ttl) is True
        assert "k" not in cache
        assert call("k", ttl) is False
    assert cache.set_many({"k": 1}, ttl) == []
    assert len(cache) == 0


@pytest.mark.parametrize("ttl", [40, 40.0, 39.5, True, Decimal(40), Fraction(79, 2)])
def test_numbers_of_seconds(cache: Cache, ttl: Any) -> None:
    cache.set("k", 1, ttl)
    cache.get_or_set("computed", lambda: 1, ttl)
    cached(ttl, key="decorated", cache=cache, stale=5)(lambda: 1)()
    for key in ("k", "computed", "decorated"):
        assert float(ttl) - 0.5 < (cache.ttl(key) or 0) <= float(ttl)


@pytest.mark.parametrize("ttl", [math.inf, 1e300, 10**30, 10**400])
def test_very_long_is_for_ever(cache: Cache, ttl: Any) -> None:
    cache.set("k", 1, ttl)
    assert cache.get("k") == 1
    assert cache.ttl("k") is None
    cache.get_or_set("computed", lambda: 1, ttl, stale=60)
    assert cache.ttl("computed") is None
    cached(ttl, key="decorated", cache=cache)(lambda: 1)()
    assert cache.ttl("decorated") is None


@pytest.mark.parametrize(
    ("ttl", "error"),
    [(math.nan, ValueError), ("5", TypeError), ([], TypeError), (1j, TypeError), (b"5", TypeError)],
)
def test_what_is_not_a_ttl(cache: Cache, ttl: Any, error: type[Exception]) -> None:
    cache.set("k", "before", 1000)
    calls: list[Callable[[], object]] = [
        lambda: cache.set("k", 1, ttl),
        lambda: cache.set("new", 1, ttl),
        lambda: cache.add("new", 1, ttl),
        lambda: cache.replace("k", 1, ttl),
        lambda: cache.touch("k", ttl),
        lambda: cache.expire("k", ttl),
        lambda: cache.set_many({"k": 1}, ttl),
    ]
    for call in calls:
        with pytest.raises(error):
            call()
    assert cache.get("k") == "before"
    assert about(cache, "k", 1000)
    assert len(cache) == 1


def test_touch_expire_persist(cache: Cache) -> None:
    assert cache.touch("k", 50) is False
    assert cache.expire("k", 50) is False
    assert cache.persist("k") is False
    cache.set("k", "v", 1000)
    assert cache.touch("k", 50) is True
    assert about(cache, "k", 50)
    assert cache.expire("k", 80.5) is True
    assert about(cache, "k", 80.5)
    assert cache.persist("k") is True
    assert cache.ttl("k") is None
    assert cache.touch("k", None) is True
    assert cache.ttl("k") is None
    assert cache.touch("k", SOON) is True
    after(SOON)
    assert "k" not in cache


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/New_York"])
def test_expire_at_the_ends_of_the_calendar(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, zone: str
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        cache.set_many({"past": 1, "future": 1})
        assert cache.expire_at("past", datetime.min) is True
        assert "past" not in cache
        assert cache.expire_at("future", datetime.max) is True
        assert (cache.ttl("future") or math.inf) > 1e9
    finally:
        monkeypatch.undo()
        time.tzset()


def test_touch_saves_from_expiring(cache: Cache) -> None:
    cache.set("k", 1, SOON)
    if cache.touch("k", 60):  # a slow machine may be late
        after(SOON)
        assert cache.get("k") == 1


def test_ttl_of_what_is_not_there(cache: Cache) -> None:
    with pytest.raises(KeyError, match="nope"):
        cache.ttl("nope")


def test_expiries_are_of_each_key(cache: Cache) -> None:
    cache.set("a", 1, SOON)
    cache.set("b", 2, 60)
    cache.set("c", 3, None)
    after(SOON)
    assert cache.get_many("abc") == {"b": 2, "c": 3}


def test_an_expiration_counts_when_the_entry_goes(cache: Cache, store: Store) -> None:
    cache.set_many({"read": 1, "deleted": 2, "set": 3, "added": 4, "left": 5}, SOON)
    after(SOON)
    assert cache.get("read") is None
    assert cache.stats().expirations == 0, "a read changes nothing"
    assert not cache.delete("deleted")
    cache.set("set", 6)
    assert cache.add("added", 7)
    stats = cache.stats()
    assert (stats.expirations, stats.deletes, stats.evictions, stats.entries) == (3, 0, 0, 4)
    cache.delete("set")
    assert not cache.delete("deleted")
    assert cache.stats().expirations == 3, "each once"
    table = store.table("expiring")
    table.set("k", 1, SOON)
    after(SOON)
    assert table.add("k", 2)
    assert table.stats().expirations == 1


def test_what_was_cleared_neither_expires_nor_is_evicted(memory: Callable[[str], Store]) -> None:
    cache = memory("8M").cache()
    cache.set_many({f"old{i}": b"x" * 1000 for i in range(2000)})
    cache.clear()
    for i in range(4):
        cache.set(f"new{i}", b"x" * 1_500_000)  # in the room of what was cleared
    stats = cache.stats()
    assert (stats.entries, stats.expirations, stats.evictions) == (4, 0, 0)


def test_expired_entries_make_room(memory: Callable[[str], Store]) -> None:
    store = memory("8M")
    cache, table = store.cache(), store.table("t")
    for i in range(100):
        cache.set(f"soon{i}", b"x" * 50_000, SOON)
    after(SOON)
    for i in range(100):  # tables evict nothing that lives
        table.set(f"k{i}", b"y" * 50_000)
    assert len(table.get_many(f"k{i}" for i in range(100))) == 100
    assert cache.stats().expirations > 0
