"""Caches: entries that get_or_set may give after their ttl are gone for every other call."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from celeriac import Cache, Store

SOON = 0.03
GRACE = 1000


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache()


@pytest.fixture(params=["stale", "stale_on_error"])
def keep(request: pytest.FixtureRequest, cache: Cache) -> Callable[[float | None], None]:
    """Keeps "old" under "k" for a ttl, and for GRACE after it."""
    return lambda ttl: cache.get_or_set("k", "old", ttl, **{request.param: GRACE})


def seconds(cache: Cache, key: str = "k") -> float:
    left = cache.ttl(key)
    assert left is not None
    return left


def never() -> Any:
    raise LookupError("it was called")


def test_stale_is_gone_for_every_other_call(
    cache: Cache, keep: Callable[[float | None], None]
) -> None:
    calls: list[tuple[Callable[[], object], object]] = [
        (lambda: cache.get("k", "gone"), "gone"),
        (lambda: "k" in cache, False),
        (lambda: cache.get_many(["k"]), {}),
        (lambda: cache.keys(), []),
        (lambda: cache.tags_of("k"), ()),
        (lambda: cache.replace("k", 2), False),
        (lambda: cache.replace("k", 2, 0), False),
        (lambda: cache.touch("k", 50), False),
        (lambda: cache.touch("k", 0), False),
        (lambda: cache.touch("k", None), False),
        (lambda: cache.expire("k", 50), False),
        (lambda: cache.expire_at("k", time.time() + 50), False),
        (lambda: cache.persist("k"), False),
        (lambda: cache.delete_many(["k"]), 0),
        (lambda: cache.delete_pattern("k"), 0),
        (lambda: cache.delete("k"), False),
    ]
    for call, expected in calls:
        cache.delete("k")
        keep(SOON)
        time.sleep(SOON + 0.005)
        assert call() == expected
        assert "k" not in cache
        assert cache.get("k") is None
    for failing, error in ((cache.ttl, KeyError), (cache.incr, ValueError)):
        with pytest.raises(error):
            failing("k")


def test_a_look_or_a_touch_leaves_the_stale_value_to_get_or_set(cache: Cache) -> None:
    cache.get_or_set("k", "old", SOON, stale_on_error=GRACE)
    time.sleep(SOON + 0.005)
    for call in (cache.get, cache.touch, cache.persist):
        call("k")
    assert cache.get_or_set("k", never, stale_on_error=GRACE) == "old"
    assert cache.delete("k") is False
    with pytest.raises(LookupError):
        cache.get_or_set("k", never, stale_on_error=GRACE)


def test_delete_removes_what_is_stale(cache: Cache, keep: Callable[[float | None], None]) -> None:
    for remove in (
        lambda: cache.delete("k"),
        lambda: cache.touch("k", -1),
        lambda: cache.set("k", 1, 0),
    ):
        keep(SOON)
        time.sleep(SOON + 0.005)
        remove()
        with pytest.raises(LookupError):
            cache.get_or_set("k", never, stale=GRACE, stale_on_error=GRACE)


@pytest.mark.parametrize("ttl", [20, 100, 5000])
def test_a_new_ttl_is_that_of_the_fresh_value(
    cache: Cache, keep: Callable[[float | None], None], ttl: float
) -> None:
    keep(60)
    assert 59 < seconds(cache) <= 60
    for call in (cache.touch, cache.expire):
        assert call("k", ttl) is True
        assert ttl - 1 < seconds(cache) <= ttl
        assert cache.get("k") == "old"
    assert cache.expire_at("k", time.time() + ttl) is True
    assert ttl - 1 < seconds(cache) <= ttl
    assert cache.persist("k") is True
    assert cache.ttl("k") is None
    assert cache.get("k") == "old"
    assert cache.touch("k", ttl) is True
    assert ttl - 1 < seconds(cache) <= ttl


def test_the_default_ttl_as_well(store: Store) -> None:
    cache = store.cache(ttl=70)
    cache.get_or_set("k", "old", 1000, stale=GRACE)
    assert cache.touch("k") is True
    assert 69 < seconds(cache) <= 70


def test_the_grace_comes_after_the_new_ttl(cache: Cache) -> None:
    cache.get_or_set("k", "old", 1000, stale_on_error=GRACE)
    assert cache.touch("k", SOON) is True
    time.sleep(SOON + 0.005)
    assert cache.get("k") is None
    assert cache.get_or_set("k", never, stale_on_error=GRACE) == "old"
    cache.get_or_set("short", "old", 1000, stale_on_error=SOON)
    assert cache.touch("short", SOON) is True
    time.sleep(2 * SOON + 0.005)
    with pytest.raises(LookupError):
        cache.get_or_set("short", never, stale_on_error=GRACE)


def test_delete_pattern_removes_what_is_stale(cache: Cache) -> None:
    cache.get_or_set("k", "old", SOON, stale=GRACE, stale_on_error=GRACE)
    time.sleep(SOON + 0.005)
    assert cache.delete_pattern("k*") == 0
    with pytest.raises(LookupError):
        cache.get_or_set("k", never, stale=GRACE, stale_on_error=GRACE)


@pytest.mark.parametrize("early", [0, 1e30])
@pytest.mark.parametrize("write", ["set", "add", "replace", "set with a tag"])
def test_what_is_set_while_it_is_refreshed_stays(cache: Cache, write: str, early: float) -> None:
    options: dict[str, Any] = {"stale": GRACE, "early": early}
    cache.get_or_set("k", "old", GRACE if early else SOON, **options)
    time.sleep(SOON + 0.005)
    writes: dict[str, Callable[[], object]] = {
        "set": lambda: cache.set("k", "newer", GRACE),
        "add": lambda: cache.add("k", "newer", GRACE) or cache.set("k", "newer", GRACE),
        "replace": lambda: cache.replace("k", "newer", GRACE) or cache.set("k", "newer", GRACE),
        "set with a tag": lambda: cache.set("k", "newer", GRACE, tags=["t"]),
    }
    calls = []

    def compute() -> str:
        calls.append(writes[write]())
        return "older"

    assert cache.get_or_set("k", compute, GRACE, **options) in ("newer", "older")
    assert len(calls) == 1
    assert cache.get("k") == "newer"
    cache.touch("k", SOON)
    time.sleep(SOON + 0.005)
    assert cache.get_or_set("k", lambda: "newest", **options) == cache.get("k") == "newest"


def test_a_refreshed_value_is_stored_though_its_entry_has_moved(cache: Cache) -> None:
    cache.get_or_set("k", "old", SOON, stale=GRACE)
    time.sleep(SOON + 0.005)

    def compute() -> str:
        seen = cache._core.examine("k", True)
        assert seen is not None
        cache._core.set("k", seen[0], seen[2])  # the same entry in another place
        return "new"

    assert cache.get_or_set("k", compute, stale=GRACE) == cache.get("k") == "new"


def test_counts_of_what_is_as_good_as_absent(cache: Cache) -> None:
    cache.set_many({"a": 1, "b": 2}, tags=["t"])
    cache.set("c", 3)
    assert cache.get_many(["c", "b", "a"]) == {"c": 3, "b": 2, "a": 1}
    assert (cache.stats().hits, cache.stats().misses) == (3, 0)
    cache.invalidate("t")
    assert cache.get("a") is None
    assert cache.get_many(["a", "b", "c"]) == {"c": 3}
    assert (cache.stats().hits, cache.stats().misses) == (4, 3)
    assert cache.get_or_set("a", lambda: 5) == 5
    assert (cache.stats().hits, cache.stats().misses) == (4, 4)


def test_entries_of_invalidated_tags(cache: Cache) -> None:
    for call in (cache.delete, cache.touch, cache.persist, lambda key: cache.touch(key, 0)):
        cache.set("k", 1, tags=["t"])
        cache.invalidate("t")
        assert call("k") is False
        assert cache.get("k") is None
    cache.set("k", 1, tags=["t"])
    assert cache.touch("k", 20) is True
    assert 19 < seconds(cache) <= 20
    assert cache.delete("k") is True


def test_tables_as_well(store: Store) -> None:
    table = store.table("t", ttl=None)
    table.set("tagged", 1, tags=["t"])
    assert table.items() == [("tagged", 1)]
    value, version = table.get_versioned("tagged")
    assert value == 1
    assert table.compare_and_set("tagged", 0, 2) is False
    assert table.compare_and_set("tagged", version, 2) is True
    assert table.get("tagged") == 2
    table.delete("tagged")
    table.get_or_set("k", lambda: "old", 60, stale=GRACE)
    table.set("other", 1, tags=["t"])
    assert table.get_versioned("k")[0] == "old"
    table.touch("k", SOON)
    table.invalidate("t")
    time.sleep(SOON + 0.005)
    assert table.items() == []
    for key in ("k", "other"):
        assert table.get_versioned(key) == (None, 0)
        assert table.compare_and_set(key, 0, "new") is True
        assert table.compare_and_set(key, 0, "newer") is False
        assert table.get(key) == "new"
