"""Caches: keys, one and many, counters, namespaces, statistics, bounds."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac import Cache, Store

LONGEST = 65_535  # bytes of a key


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache()


# ------------------------------------------------------------------ one key


def test_set_get_delete(cache: Cache) -> None:
    assert cache.get("k") is None
    assert cache.get("k", "other") == "other"
    assert cache.get("k", default=7) == 7
    assert "k" not in cache
    assert cache.set("k", "v") is None
    assert cache.get("k", "other") == "v"
    assert "k" in cache
    assert cache.delete("k") is True
    assert cache.delete("k") is False
    assert cache.get("k") is None
    assert "k" not in cache


def test_set_replaces_value_and_type(cache: Cache) -> None:
    for value in ("text", 5, b"bytes", None, [1], "x" * 5000, "", 2**80, True):
        cache.set("k", value)
        assert cache.get("k", "missing") == value
    assert len(cache) == 1


def test_add_stores_only_what_is_not_there(cache: Cache) -> None:
    assert cache.add("k", 1) is True
    assert cache.add("k", 2) is False
    assert cache.get("k") == 1
    cache.delete("k")
    assert cache.add("k", 3) is True
    assert cache.get("k") == 3


def test_a_stored_none_is_there(cache: Cache) -> None:
    cache.set("k", None)
    assert cache.get("k", "missing") is None
    assert "k" in cache
    assert cache.add("k", 1) is False
    assert cache.get_many(["k"]) == {"k": None}
    assert cache.delete("k") is True


def test_replace_stores_only_over_what_is_there(cache: Cache) -> None:
    assert cache.replace("k", 1) is False
    assert "k" not in cache
    cache.set("k", 1)
    assert cache.replace("k", 2) is True
    assert cache.get("k") == 2


def test_handles_share_what_is_stored(connect: Callable[..., Store]) -> None:
    a, b = connect().cache(), connect().cache()
    a.set("k", [1, 2])
    assert b.get("k") == [1, 2]
    b.delete("k")
    assert a.get("k") is None


def test_other_process_reads_and_writes(
    cache: Cache, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    cache.set("question", {"a": 6, "b": 7})
    process = python("""
q = store.cache().get("question")
store.cache().set("answer", q["a"] * q["b"])
""")
    assert process.wait(30) == 0
    assert cache.get("answer") == 42


# ------------------------------------------------------------------ keys


@pytest.mark.parametrize(
    "key",
    ["", "k", "a b\n\t\0", "é" * 100, "\U0001f600", b"", b"\0\xff\xfe", "x" * LONGEST, b"x" * 7],
    ids=lambda key: f"{type(key).__name__}-{len(key)}",
)
def test_keys_of_any_text_and_bytes(cache: Cache, key: str | bytes) -> None:
    cache.set(key, "v")
    assert cache.get(key) == "v"
    assert key in cache
    assert cache.get_many([key]) == {key: "v"}
    assert cache.touch(key, 50) is True
    assert cache.delete_many([key]) == 1
    assert key not in cache


def test_text_and_its_utf8_are_the_same_key(cache: Cache) -> None:
    cache.set("schlüssel", 1)
    assert cache.get("schlüssel".encode()) == 1
    assert cache.get_many(["schlüssel".encode()]) == {"schlüssel".encode(): 1}


def test_keys_that_differ_in_little(cache: Cache) -> None:
    keys = ["", "\0", "\0\0", "a", "a\0", "A", " a", "a ", "x" * (LONGEST - 1), "x" * LONGEST]
    for i, key in enumerate(keys):
        cache.set(key, i)
    assert [cache.get(key) for key in keys] == list(range(len(keys)))
    assert len(cache) == len(keys)


@pytest.mark.parametrize("key", ["x" * (LONGEST + 1), b"x" * (LONGEST + 1), "é" * 32_768])
def test_longer_keys_are_refused_by_every_call(cache: Cache, key: str | bytes) -> None:
    for call in _calls(cache, key):
        with pytest.raises(celeriac.ValueTooLarge, match="65535"):
            call()
    assert len(cache) == 0


@pytest.mark.parametrize("key", [None, 1, 1.5, ("a",), bytearray(b"k"), object()])
def test_other_types_of_key_are_refused_by_every_call(cache: Cache, key: Any) -> None:
    for call in _calls(cache, key):
        with pytest.raises(TypeError, match="str or bytes"):
            call()
    assert len(cache) == 0


def test_text_that_is_not_unicode_is_refused_by_every_call(cache: Cache) -> None:
    for call in _calls(cache, "\ud800"):
        with pytest.raises(UnicodeEncodeError):
            call()
    assert len(cache) == 0


def _calls(cache: Cache, key: Any) -> list[Callable[[], object]]:
    return [
        lambda: cache.get(key),
        lambda: cache.set(key, 1),
        lambda: cache.set(key, 1, 0),
        lambda: cache.add(key, 1),
        lambda: cache.replace(key, 1),
        lambda: cache.delete(key),
        lambda: cache.touch(key),
        lambda: cache.expire(key, 5),
        lambda: cache.persist(key),
        lambda: cache.ttl(key),
        lambda: cache.incr(key),
        lambda: cache.decr(key),
        lambda: key in cache,
        lambda: cache.get_many([key]),
        lambda: cache.delete_many([key]),
    ]


# ------------------------------------------------------------------ many keys


def test_many_keys(cache: Cache) -> None:
    assert cache.set_many({"a": 1, b"b": [2], "c": None}) == []
    assert cache.get_many(["a", b"b", "c", "d"]) == {"a": 1, b"b": [2], "c": None}
    assert cache.delete_many(["a", b"b", "d"]) == 2
    assert cache.get_many(["a", b"b", "c"]) == {"c": None}


def test_many_of_none(cache: Cache) -> None:
    assert cache.get_many([]) == {}
    assert cache.set_many({}) == []
    assert cache.delete_many([]) == 0


def test_many_keys_from_iterators(cache: Cache) -> None:
    cache.set_many({str(i): i for i in range(50)})
    assert cache.get_many(str(i) for i in range(0, 60, 10)) == {str(i): i for i in range(0, 50, 10)}
    assert cache.get_many(iter({"1": 0, "2": 0}.keys())) == {"1": 1, "2": 2}
    assert cache.get_many({"3"}) == {"3": 3}
    assert cache.delete_many(str(i) for i in range(45, 55)) == 5
    assert cache.delete_many(iter(("0", "0"))) == 1
    assert len(cache) == 44


def test_repeated_keys_are_one(cache: Cache) -> None:
    cache.set("a", 1)
    assert cache.get_many(["a", "a"]) == {"a": 1}


def test_an_iterator_that_fails_is_heard(cache: Cache) -> None:
    def keys() -> Any:
        yield "a"
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        cache.get_many(keys())
    with pytest.raises(LookupError, match="no more"):
        cache.delete_many(keys())


def test_set_many_takes_a_ttl(cache: Cache) -> None:
    cache.set_many({"a": 1, "b": 2}, 100)
    assert 99 < (cache.ttl("a") or 0) <= 100
    cache.set_many({"a": 1}, None)
    assert cache.ttl("a") is None
    cache.set_many({"b": 2}, ttl=0)
    assert "b" not in cache


def test_set_many_names_what_it_could_not_store(memory: Callable[[str], Store]) -> None:
    cache = memory("8M").cache()
    assert cache.set_many({"a": 1, "big": b"x" * (9 << 20), "b": 2}) == ["big"]
    assert cache.get_many(["a", "big", "b"]) == {"a": 1, "b": 2}


def test_set_many_with_what_can_not_be_stored_at_all(cache: Cache) -> None:
    with pytest.raises(celeriac.SerializationError):
        cache.set_many({"a": lambda: None})
    with pytest.raises(TypeError):
        cache.set_many({1: "one"})  # type: ignore[dict-item]
    assert len(cache) == 0


@pytest.mark.parametrize("options", [{}, {"serializer": "pickle"}, {"max_entries": 50}])
def test_set_many_stores_all_or_none(store: Store, options: dict[str, Any]) -> None:
    cache = store.cache(**options)
    cache.set("b", "old")
    good = {"a": 1, "b": "text", "c": {"plain": [1.5, None]}, "d": b"x" * 5000, "e": 1j}
    for bad in (lambda: None, [Refusing()]):
        with pytest.raises(celeriac.SerializationError):
            cache.set_many({**good, "bad": bad, "never": 1})
        assert cache.keys() == ["b"]
        assert cache.get("b") == "old"
    assert cache.set_many(good) == []
    assert cache.get_many(["a", "b", "c", "d", "e"]) == good


class Refusing:
    def __reduce__(self) -> Any:
        raise RuntimeError("not this one")


# ------------------------------------------------------------------ counters


def test_counters(cache: Cache) -> None:
    cache.set("n", 5)
    assert cache.incr("n") == 6
    assert cache.incr("n", 10) == 16
    assert cache.incr("n", delta=-20) == -4
    assert cache.decr("n") == -5
    assert cache.decr("n", delta=-5) == 0
    assert cache.incr("n", 0) == 0
    assert cache.get("n") == 0


@pytest.mark.parametrize("start", [0, 2**63 - 1, -(2**63), 2**63, 2**64, -(2**100), 7 * 10**40])
@pytest.mark.parametrize("delta", [1, -1, 2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**100])
def test_counters_go_beyond_64_bits(cache: Cache, start: int, delta: int) -> None:
    cache.set("n", start)
    assert cache.incr("n", delta) == start + delta
    assert cache.get("n") == start + delta
    assert cache.decr("n", delta) == start
    assert cache.get("n") == start
    assert type(cache.get("n")) is int


def test_counters_come_back_from_beyond(cache: Cache) -> None:
    cache.set("n", 2**63 - 2)
    assert [cache.incr("n") for _ in range(4)] == [2**63 - 1, 2**63, 2**63 + 1, 2**63 + 2]
    assert [cache.decr("n") for _ in range(4)] == [2**63 + 1, 2**63, 2**63 - 1, 2**63 - 2]


@pytest.mark.parametrize("start", [5, 2**63 - 1, 2**80])
@pytest.mark.parametrize("delta", [1, 2**70])
def test_counters_keep_their_expiry(cache: Cache, start: int, delta: int) -> None:
    cache.set("n", start, 100)
    cache.incr("n", delta)
    assert 99 < (cache.ttl("n") or 0) <= 100
    cache.set("n", start, None)
    cache.incr("n", delta)
    assert cache.ttl("n") is None


@pytest.mark.parametrize("delta", [1, 2**70])
def test_a_counter_that_is_not_there(cache: Cache, delta: int) -> None:
    with pytest.raises(ValueError, match="'n' not found"):
        cache.incr("n", delta)
    with pytest.raises(ValueError, match="'n' not found"):
        cache.decr("n", delta)
    assert "n" not in cache


@pytest.mark.parametrize("value", [None, True, 1.5, "1", b"1", b"12345678", [1]])
@pytest.mark.parametrize("delta", [1, 2**70])
def test_what_is_not_a_counter(cache: Cache, value: object, delta: int) -> None:
    cache.set("n", value)
    with pytest.raises(TypeError, match="'n' is not an int"):
        cache.incr("n", delta)
    assert cache.get("n") == value
    assert type(cache.get("n")) is type(value)


@pytest.mark.parametrize("delta", [1.5, "1", None])
def test_a_delta_is_an_int(cache: Cache, delta: Any) -> None:
    cache.set("n", 5)
    with pytest.raises(TypeError):
        cache.incr("n", delta)
    with pytest.raises(TypeError):
        cache.decr("n", delta)
    assert cache.get("n") == 5


def test_counters_lose_nothing_between_processes(
    cache: Cache, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    cache.set_many({"n": 0, "big": 2**64})
    code = 'for _ in range(2000):\n store.cache().incr("n")\n store.cache().incr("big", 2**65)\n'
    workers = [python(code) for _ in range(3)]
    assert [w.wait(60) for w in workers] == [0, 0, 0]
    assert cache.get("n") == 6000
    assert cache.get("big") == 2**64 + 6000 * 2**65


# ------------------------------------------------------------------ namespaces


def test_namespaces_are_apart(store: Store) -> None:
    a, b, table = store.cache("a"), store.cache("b"), store.table("c")
    a.set("k", 1)
    b.set("k", 2)
    table.set("k", 3)
    assert (a.get("k"), b.get("k"), table.get("k")) == (1, 2, 3)
    a.delete("k")
    assert (a.get("k"), b.get("k"), table.get("k")) == (None, 2, 3)


def test_clear_empties_one_namespace(store: Store, engine: str) -> None:
    a, b, table = store.cache("a"), store.cache("b"), store.table("c")
    for space in (a, b, table):
        space.set_many({str(i): i for i in range(100)})
    queue = None if engine == "file" else store.queue("q")
    if queue is not None:
        queue.put(b"m")
    a.clear()
    assert len(a) == 0
    assert a.get_many(str(i) for i in range(100)) == {}
    assert "5" not in a
    assert a.delete("5") is False
    assert a.touch("5") is False
    with pytest.raises(ValueError, match="not found"):
        a.incr("5")
    for other in (b, table):
        assert len(other) == 100
        assert other.get_many(str(i) for i in range(100)) == {str(i): i for i in range(100)}
    assert queue is None or queue.counts().ready == 1
    table.clear()
    assert len(table) == 0
    assert len(b) == 100


def test_after_clear_all_begins_anew(connect: Callable[..., Store]) -> None:
    a, b = connect().cache(), connect().cache()
    for turn in range(5):
        assert a.add("k", turn) is True
        assert b.get("k") == turn
        b.clear()
        assert a.get("k") is None
        assert len(a) == 0


def test_a_cache_is_not_a_table(store: Store) -> None:
    store.cache("a")
    store.table("b")
    with pytest.raises(celeriac.ConfigurationError, match="cache"):
        store.table("a")
    with pytest.raises(celeriac.ConfigurationError, match="table"):
        store.cache("b")


# ------------------------------------------------------------------ bounds


def test_max_entries(store: Store) -> None:
    cache = store.cache("small", max_entries=10)
    for i in range(100):
        cache.set(f"k{i}", i)
        assert cache.get(f"k{i}") == i
        assert len(cache) <= 10
    assert cache.add("one more", 1) is True
    assert len(cache) == 10
    assert cache.stats().evictions == 91
    assert len(store.cache("other")) == 0


def test_cull(cache: Cache) -> None:
    cache.set_many({str(i): i for i in range(20)})
    assert cache.cull(0) == 0
    assert cache.cull(-3) == 0
    assert len(cache) == 20
    assert cache.cull(5) == 5
    assert len(cache) == 15
    assert len(cache.get_many(str(i) for i in range(20))) == 15
    assert cache.cull(100) == 15
    assert len(cache) == 0
    assert cache.cull(1) == 0


def test_cull_leaves_other_namespaces(store: Store) -> None:
    store.cache("a").set_many({str(i): i for i in range(20)})
    store.cache("b").set_many({str(i): i for i in range(20)})
    assert store.cache("a").cull(20) == 20
    assert len(store.cache("b")) == 20


def test_more_than_fits_evicts_and_stays_within_memory(memory: Callable[[str], Store]) -> None:
    store = memory("8M")
    cache = store.cache(ttl=None)
    for i in range(4000):
        cache.set(f"k{i}", b"%06d" % i * 1500)  # 36 MB in all
        assert cache.get(f"k{i}") == b"%06d" % i * 1500
    stats = store.stats()
    assert stats["memory_allocated"] <= stats["memory_limit"] == 8 << 20
    held = cache.get_many(f"k{i}" for i in range(4000))
    assert 300 < len(held) == len(cache)
    assert all(value == key[1:].zfill(6).encode() * 1500 for key, value in held.items())
    assert cache.stats().evictions == 4000 - len(held)


# ------------------------------------------------------------------ statistics


def test_statistics(store: Store) -> None:
    cache = store.cache("counted")
    assert cache.stats() == (0, 0, 0, 0, 0, 0, 0, 0, cache.stats().bytes_limit)
    assert cache.stats().hit_ratio == 0.0
    cache.set("a", 1)
    cache.set_many({"b": 2, "c": 3})
    for key in ("a", "a", "b", "nope"):
        cache.get(key)
    cache.get_many(["a", "nope", "nope"])
    cache.delete("c")
    cache.delete("nope")
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.sets, stats.deletes) == (4, 3, 3, 1)
    assert stats.hit_ratio == pytest.approx(4 / 7)
    assert stats.entries == len(cache) == 2
    assert 0 < stats.bytes < stats.bytes_limit
    assert store.cache("not counted").stats().hits == 0


def test_statistics_count_all_processes(
    cache: Cache, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    cache.set("k", 1)
    cache.get("k")
    process = python('store.cache().get("k"); store.cache().get("x"); store.cache().set("y", 1)')
    assert process.wait(30) == 0
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.sets, stats.entries) == (2, 1, 2, 2)


def test_looking_at_an_expiry_is_no_lookup(cache: Cache) -> None:
    cache.set("k", 1)
    before = cache.stats()
    cache.ttl("k")
    assert "k" in cache
    with pytest.raises(KeyError):
        cache.ttl("nope")
    assert "nope" not in cache
    assert cache.stats() == before


def test_bytes_come_and_go(cache: Cache) -> None:
    cache.set("k", b"x" * 100_000)
    assert 100_000 <= cache.stats().bytes < 120_000
    cache.set("k", b"x" * 10)
    assert cache.stats().bytes < 1_000
    cache.delete("k")
    assert cache.stats().bytes == 0
