"""What is counted of a cache by the prefixes of its keys: once, and they sum up."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from celeriac import Cache, PrefixStats, Store

COUNTED = ("hits", "misses", "sets", "deletes", "evictions", "expirations")


@pytest.fixture
def cache(store: Store) -> Cache:
    """A cache of the test's store."""
    return store.cache("c")


def counts(cache: Cache) -> dict[str, dict[str, int]]:
    """What isn't zero, by prefix."""
    return {
        prefix: {name: n for name in COUNTED if (n := getattr(stats, name))}
        for prefix, stats in cache.stats_by_prefix().items()
    }


def assert_sums(cache: Cache) -> None:
    """The rows sum up to what the cache has counted, and holds."""
    rows, whole = cache.stats_by_prefix().values(), cache.stats()
    for name in (*COUNTED, "entries"):
        assert sum(getattr(row, name) or 0 for row in rows) == getattr(whole, name), name


# ------------------------------------------------------------------ each operation


def get_some(cache: Cache) -> None:
    assert cache.get_many(["a:1", "b:1", "b:2"]) == {"a:1": 1}


def get_or_set_twice(cache: Cache) -> None:
    for _ in range(2):
        assert cache.get_or_set("b:1", 2) == 2


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (lambda c: c.get("a:1"), {"a": {"hits": 1}}),
        (lambda c: c.get("a:2"), {"a": {"misses": 1}}),
        (get_some, {"a": {"hits": 1}, "b": {"misses": 2}}),
        (lambda c: c.set("b:1", 1), {"b": {"sets": 1}}),
        (lambda c: c.set(b"b:1", 1), {"b": {"sets": 1}}),
        (lambda c: c.set_many({"a:1": 2, "b:1": 1}), {"a": {"sets": 1}, "b": {"sets": 1}}),
        (lambda c: c.add("a:1", 1), {}),
        (lambda c: c.add("b:1", 1), {"b": {"sets": 1}}),
        (lambda c: c.replace("a:1", 1), {"a": {"sets": 1}}),
        (lambda c: c.delete("a:1"), {"a": {"deletes": 1}}),
        (lambda c: c.delete("a:2"), {}),
        (lambda c: c.delete_many(["a:1", "alone", "b:1"]), {n: {"deletes": 1} for n in ("a", "")}),
        (lambda c: c.incr("a:1"), {}),
        (lambda c: c.touch("a:1", 10), {}),
        (lambda c: "a:1" in c, {}),
        (lambda c: c.cull(3), {"a": {"evictions": 1}, "": {"evictions": 1}, "ü": {"evictions": 1}}),
        (lambda c: c.clear(), {}),
    ],
)  # fmt: skip
def test_each_operation(
    cache: Cache, operation: Callable[[Cache], Any], expected: dict[str, dict[str, int]]
) -> None:
    cache.set_many({"a:1": 1, "alone": 1, "ü:1": 1})
    before, whole = counts(cache), cache.stats()
    assert before == {"a": {"sets": 1}, "": {"sets": 1}, "ü": {"sets": 1}}
    operation(cache)
    after = counts(cache)
    change = {
        prefix: {
            name: n - before.get(prefix, {}).get(name, 0)
            for name, n in row.items()
            if n != before.get(prefix, {}).get(name, 0)
        }
        for prefix, row in after.items()
    }
    assert {prefix: row for prefix, row in change.items() if row} == expected
    assert_sums(cache)
    for name in COUNTED:
        added = getattr(cache.stats(), name) - getattr(whole, name)
        assert added == sum(row.get(name, 0) for row in expected.values())


def test_get_or_set_is_counted_where_its_key_is(cache: Cache) -> None:
    get_or_set_twice(cache)
    found = counts(cache)
    assert set(found) == {"b"}
    assert found["b"]["hits"] >= 1
    assert found["b"]["misses"] >= 1
    assert found["b"]["sets"] == 1
    assert_sums(cache)


def test_expiry_and_eviction_are_the_keys_own(memory: Callable[[str], Store]) -> None:
    cache = memory("2M").cache("c")
    for i in range(50):
        cache.set(f"short:{i}", b"x" * 1000, ttl=1e-6)
    for i in range(4000):
        cache.set(f"long:{i}", b"x" * 1000, ttl=None)
    rows = cache.stats_by_prefix()
    assert rows["short"].expirations == 50
    assert rows["short"].evictions == 0
    assert rows["long"].expirations == 0
    assert rows["long"].evictions == 4000 - rows["long"].entries
    assert_sums(cache)


def test_a_cache_with_a_limit(store: Store) -> None:
    cache = store.cache("ten", max_entries=10)
    for i in range(100):
        cache.set(f"p{i % 3}:{i}", i)
    assert sum(row.evictions or 0 for row in cache.stats_by_prefix().values()) == 90
    assert_sums(cache)


# ------------------------------------------------------------------ what prefixes are

KEYS = st.one_of(
    st.builds("{}:{}".format, st.sampled_from("abcdef"), st.integers(0, 3)),
    st.builds("{}:x".format, st.text("xyz", min_size=38, max_size=43)),
    st.text("a:b", max_size=5),
    st.binary(max_size=12),
)
CALLS: dict[str, Callable[[Cache, Any], Any]] = {
    "get": lambda c, k: c.get(k),
    "set": lambda c, k: c.set(k, 1),
    "add": lambda c, k: c.add(k, 1),
    "delete": lambda c, k: c.delete(k),
    "expired": lambda c, k: c._core.set(k, 1, 1e-6),
    "incr": lambda c, k: k in c and c.incr(k),
    "touch": lambda c, k: c.touch(k, 100),
    "get_or_set": lambda c, k: c.get_or_set(k, 1),
    "cull": lambda c, k: c.cull(2),
    "clear": lambda c, k: c.clear(),
}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.sampled_from(sorted(CALLS)), KEYS), max_size=60))
def test_sums_after_any_mix(store: Store, mix: list[tuple[str, Any]]) -> None:
    cache = store.cache("mix")
    for call, key in mix:
        CALLS[call](cache, key)
    cache.cull(10_000)  # what has expired is counted, or not, by now
    assert_sums(cache)


def test_long_prefixes_are_others(cache: Cache) -> None:
    cache.set("x" * 40 + ":1", 1)
    cache.set("y" * 41 + ":1", 1)
    cache.set("z" * 100, 1)
    rows = cache.stats_by_prefix()
    assert (rows["x" * 40].sets, rows["(other)"].sets, rows[""].sets) == (1, 1, 1)
    assert rows["y" * 41] == PrefixStats(1, rows["y" * 41].bytes)
    assert rows["y" * 41].hit_ratio is None
    assert_sums(cache)


def test_a_bounded_number(store: Store, cache: Cache) -> None:
    for i in range(500):
        cache.set(f"p{i}:1", i)
        assert cache.get(f"p{i}:1") == i
    rows = cache.stats_by_prefix(most=1000)
    own = {prefix: row for prefix, row in rows.items() if row.sets is not None}
    assert 20 < len(own) <= 50
    assert own["(other)"].sets == 500 - (len(own) - 1)
    assert all(rows[f"p{i}:1".partition(":")[0]].entries == 1 for i in range(500))
    assert_sums(cache)
    few = cache.stats_by_prefix(most=3)
    assert len(few) == 4
    assert sum(row.sets or 0 for row in few.values()) == 500
    # There are rows left for others. (Which prefixes find one hangs on the store's hash.)
    other = store.cache("other")
    other.set_many({f"mine{i}:1": i for i in range(20)})
    rows = other.stats_by_prefix()
    assert sum(row.sets == 1 for prefix, row in rows.items() if prefix != "(other)") >= 10
    assert sum(row.sets or 0 for row in rows.values()) == 20


def test_hit_ratio_and_another_separator(cache: Cache) -> None:
    cache.set("a:1/2", 1)
    cache.get("a:1/2")
    cache.get("a:1/3")
    assert cache.stats_by_prefix()["a"].hit_ratio == 0.5
    cache.set("b:1", 1)
    assert cache.stats_by_prefix()["b"].hit_ratio == 0.0
    assert cache.stats_by_prefix("/")["a:1"] == PrefixStats(1, cache.stats_by_prefix()["a"].bytes)


def test_what_all_keys_begin_with(store: Store) -> None:
    cache = store.cache("led", lead="app:1:")
    cache.set("app:1:product:7", 1)
    cache.set("app:1:alone", 1)
    cache.set("else:7", 1)
    expected = {"product": {"sets": 1}, "": {"sets": 1}, "else": {"sets": 1}}
    assert counts(cache) == expected
    assert counts(store.cache("led")) == expected  # it is the namespace's
    with pytest.raises(ValueError, match="lead='app'"):
        store.cache("led", lead="app")
    with pytest.raises(TypeError, match="lead"):
        store.cache("led", lead=5)  # type: ignore[arg-type]


# ------------------------------------------------------------------ names and processes


def test_names_that_change_places(store: Store) -> None:
    gone = store.cache("gone")
    gone.set("old:1", 1)
    gone.delete("old:1")
    for i in range(300):
        cache = store.cache("n", version=i)
        assert cache.stats_by_prefix() == {}
        cache.set("new:1", 1)
        rows = cache.stats_by_prefix()  # (other): names before it have all the rows
        assert set(rows) <= {"new", "(other)"}
        assert sum(row.sets or 0 for row in rows.values()) == 1
        cache.delete("new:1")
    assert gone.stats_by_prefix() == {}
    gone.set("old:2", 1)
    assert_sums(gone)


def test_several_processes(
    store: Store, cache: Cache, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    code = """
cache = store.cache("c")
for i in range(500):
    cache.set(f"{'abc'[i % 3]}:{i}", i)
    cache.get(f"{'abc'[i % 3]}:{i}")
"""
    for process in [python(code) for _ in range(3)]:
        assert process.wait(60) == 0
    expected = {"a": 167, "b": 167, "c": 166}
    for prefix, n in expected.items():
        row = cache.stats_by_prefix()[prefix]
        assert (row.sets, row.hits) == (3 * n, 3 * n)
    assert_sums(cache)


def test_what_the_store_says(store: Store, cache: Cache) -> None:
    cache.set("a:1", 1, tags=["t:1"])
    cache.get("a:1")
    prefixes = store.stats()["prefixes"]
    assert prefixes["c"]["a"]["sets"] == 1
    assert set(prefixes["c"]["a"]) == set(COUNTED)
    assert list(prefixes) == ["c"]  # tags are no cache of the application's
