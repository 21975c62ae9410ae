"""Caches: tags, and what a tag that was invalidated or lost makes of its entries."""

from __future__ import annotations

import contextlib
import subprocess
import threading
from collections.abc import Callable

import pytest

import celeriac
from celeriac import Cache, Store, tags


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache("tagged")


def test_invalidate(cache: Cache) -> None:
    cache.set("a", [1], tags=["product:7", "list"])
    cache.set("b", 2, tags=["product:8", "list"])
    cache.set("c", "untagged")
    cache.invalidate("product:7")
    assert cache.get("a") is None
    assert cache.get("a", "default") == "default"
    assert cache.get_many("abc") == {"b": 2, "c": "untagged"}
    cache.invalidate("list", "never used")
    assert cache.get_many("abc") == {"c": "untagged"}
    cache.invalidate()
    assert cache.get("c") == "untagged"


def test_a_tag_can_be_used_again(cache: Cache) -> None:
    for value in range(3):
        cache.set("a", value, tags=["t"])
        assert cache.get("a") == value
        cache.invalidate("t")
        assert cache.get("a") is None


def test_every_read_takes_an_invalid_entry_for_absent(cache: Cache) -> None:
    cache.set("n", 1, tags="t")
    assert "n" in cache
    assert cache.incr("n") == 2
    assert 299 < (cache.ttl("n") or 0) <= 300
    cache.invalidate("t")
    assert "n" not in cache
    assert cache.keys() == []
    with pytest.raises(KeyError):
        cache.ttl("n")
    with pytest.raises(ValueError, match="not found"):
        cache.incr("n")
    assert cache.replace("n", 5) is False
    assert cache.add("n", 6) is True
    assert cache.get("n") == 6


def test_writes_that_keep_the_tags(cache: Cache) -> None:
    cache.set("n", 1, 60, tags=["t"])
    assert cache.incr("n", 2**70) == 2**70 + 1
    assert cache.touch("n", 1000)
    assert 999 < (cache.ttl("n") or 0) <= 1000
    cache.invalidate("t")
    assert "n" not in cache


def test_writes_that_replace_the_tags(cache: Cache) -> None:
    cache.set("a", 1, tags=["t"])
    cache.set("a", 2)
    cache.invalidate("t")
    assert cache.get("a") == 2
    cache.replace("a", 3, tags=["t"])
    cache.set_many({"b": 1, "c": 2}, tags=["t"])
    assert cache.add("a", 4, tags=["t"]) is False
    cache.invalidate("t")
    assert cache.get_many("abc") == {}


def test_tags_of_one_cache(store: Store, cache: Cache) -> None:
    other = store.cache("other")
    other.set("a", 1, tags=["t"])
    cache.set("a", 1, tags=["t"])
    cache.invalidate("t")
    assert "a" not in cache
    assert other.get("a") == 1


def test_any_other_serializer(store: Store) -> None:
    cache = store.cache("j", serializer="json", compressor="zlib", compress_above=10)
    cache.set("a", ["x" * 100], tags=["t"])
    assert cache.get("a") == ["x" * 100]
    cache.invalidate("t")
    assert cache.get("a") is None


def test_a_lost_tag_makes_its_entries_invalid(store: Store, cache: Cache) -> None:
    cache.set("a", 1, tags=["t", "u"])
    store.cache(tags.NAMESPACE).clear()  # as if evicted
    assert cache.get("a") is None
    cache.set("b", 1, tags=["t", "u"])  # and stay so when the tag is there again
    assert cache.get("a") is None
    assert cache.get("b") == 1


def test_tags_are_evicted_under_pressure_and_nothing_old_comes_back(
    memory: Callable[[str], Store],
) -> None:
    cache = memory("4M").cache()
    for i in range(300):
        cache.set(f"k{i}", i, tags=[f"t{i}"])
        cache.invalidate(f"t{i}")
    for i in range(40):
        cache.set(f"fill {i}", bytes(200_000))
    for i in range(300):
        cache.set(f"new {i}", i, tags=[f"t{i}"])
    assert [i for i in range(300) if cache.get(f"k{i}") is not None] == []


def test_a_tag_invalidated_while_the_value_is_computed(cache: Cache) -> None:
    def compute() -> str:
        cache.invalidate("t")  # another changes what we have just read
        return "old"

    assert cache.get_or_set("a", compute, tags=["t"]) == "old"
    assert cache.get("a") is None


def test_other_processes(cache: Cache, python: Callable[[str], subprocess.Popen[str]]) -> None:
    cache.set("a", 1, tags=["t"])
    process = python(
        "cache = store.cache('tagged'); print(cache.get('a'), flush=True); "
        "cache.invalidate('t'); cache.set('b', 2, tags=['t']); print('done', flush=True)"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    assert process.stdout.readline() == "done\n"
    assert cache.get("a") is None
    assert cache.get("b") == 2
    cache.invalidate("t")
    assert cache.get("b") is None


def test_many_threads_make_one_generation(cache: Cache) -> None:
    start = threading.Barrier(8)

    def work(name: str) -> None:
        start.wait()
        cache.set(name, 1, tags=["new"])

    threads = [threading.Thread(target=work, args=(str(i),)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(cache.get_many(str(i) for i in range(8))) == 8


def test_clear_of_a_cache_leaves_the_others(store: Store, cache: Cache) -> None:
    store.cache("other").set("a", 1, tags=["t"])
    store.queue("q").put(b"stays")
    cache.set("a", 1, tags=["t"])
    cache.clear()
    assert cache.get("a") is None
    assert len(cache) == 0
    assert store.cache("other").get("a") == 1
    assert store.queue("q").counts().ready == 1


def test_versions_are_caches_of_their_own(store: Store) -> None:
    one, two = store.cache("v", version=1), store.cache("v", version=2)
    one.set("a", 1)
    assert "a" not in two
    assert store.cache("v", version=1).get("a") == 1


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (1, TypeError),
        ([1], TypeError),
        ([b"t"], TypeError),
        ([""], ValueError),
        (["x" * 2000], ValueError),
        ([str(i) for i in range(2000)], ValueError),
    ],
)
def test_tags_that_are_none(cache: Cache, given: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="tag"):
        cache.set("a", 1, tags=given)  # type: ignore[arg-type]
    assert "a" not in cache


def test_a_damaged_header_is_a_miss(store: Store, cache: Cache) -> None:
    from celeriac.entries import Named

    cache.set("a", "value", tags=["t"])
    whole = cache._core.get("a")
    assert type(whole) is Named
    for size in range(len(whole)):
        cache._core.set("a", Named(whole[:size]), None)
        with contextlib.suppress(celeriac.SerializationError):  # the value's own bytes, cut off
            assert cache.get("a") in (None, "value"[: size - len(whole) or None])
    cache._core.set("a", Named(b"\x02" + whole[1:]), None)  # another version of the format
    assert cache.get("a") is None
