"""Caches: keys by pattern, a few at a time."""

from __future__ import annotations

import fnmatch
import string
import subprocess
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac import Cache, Store
from celeriac.patterns import Pattern, escape


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache("keys")


def test_keys(cache: Cache) -> None:
    assert cache.keys() == []
    cache.set_many({"product:1": 1, "product:2": 2, "user:1": 3, "": 4, "ü:1": 5})
    assert set(cache.keys()) == {"product:1", "product:2", "user:1", "", "ü:1"}
    assert set(cache.keys("product:*")) == {"product:1", "product:2"}
    assert cache.keys("?:1") == ["ü:1"]
    assert cache.keys("product:") == []
    assert cache.keys("") == [""]


def test_keys_that_are_no_text(cache: Cache) -> None:
    cache.set(b"\xff\xfe", 1)
    cache.set(b"text", 1)
    assert set(cache.keys()) == {b"\xff\xfe", "text"}
    assert cache.keys("t*") == ["text"]
    assert cache.keys("??") == [b"\xff\xfe"]


def test_keys_of_this_cache_only(store: Store, cache: Cache) -> None:
    store.cache("other").set("a", 1)
    store.table("third").set("b", 1)
    cache.set("c", 1)
    assert cache.keys() == ["c"]
    assert store.table("third").keys("?") == ["b"]


def test_absent_keys_do_not_come(cache: Cache) -> None:
    cache.set_many({"expired": 1, "deleted": 1, "there": 1})
    cache.touch("expired", 0.001)
    cache.delete("deleted")
    cache.set("invalid", 1, tags=["t"])
    cache.invalidate("t")
    cache.set("tagged", 1, tags=["t"])
    time.sleep(0.01)
    assert set(cache.keys()) == {"there", "tagged"}
    cache.clear()
    assert cache.keys() == []


def test_iter_keys_of_many(cache: Cache) -> None:
    expected = {f"key {i}" for i in range(5000)}
    cache.set_many(dict.fromkeys(expected, 1))
    assert set(cache.iter_keys()) == expected
    assert set(cache.iter_keys("key *", itersize=7)) == expected
    keys = cache.keys("*")
    assert len(keys) == 5000
    assert set(keys) == expected


def test_iter_keys_is_lazy(cache: Cache) -> None:
    cache.set_many({str(i): i for i in range(100)})
    keys = cache.iter_keys("*", itersize=1)
    assert iter(keys) is keys
    first = next(keys)
    cache.clear()
    assert first not in list(keys)


@pytest.mark.parametrize("itersize", [1, 50, 1000])
def test_a_step_of_a_walk_is_bounded(cache: Cache, itersize: int) -> None:
    cache.set_many({f"key {i}": i for i in range(4000)})
    steps = [len(step) for step in cache.iter_steps("key *", itersize)]
    assert sum(steps) == 4000
    assert max(steps) <= itersize + 64  # a step ends behind the bucket that fills it
    assert len(steps) >= 4000 // (itersize + 64)
    # Each step looks at so many keys, whether they match or not.
    assert len(list(cache.iter_steps("none *", itersize))) == len(steps)


def test_keys_that_stay_come_while_others_come_and_go(cache: Cache) -> None:
    stays = {f"stays {i}" for i in range(300)}
    cache.set_many(dict.fromkeys(stays, 1))
    done = threading.Event()

    def churn() -> None:
        i = 0
        while not done.is_set():
            cache.set(f"other {i}", i)
            cache.delete(f"other {i - 50}")
            i += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            assert stays <= set(cache.iter_keys("stays *", itersize=10))
    finally:
        done.set()
        thread.join()


def test_keys_that_stay_come_while_the_cache_grows(cache: Cache) -> None:
    stays = {f"stays {i}" for i in range(100)}
    cache.set_many(dict.fromkeys(stays, 1))
    seen = set()
    for i, key in enumerate(cache.iter_keys("*", itersize=5)):
        seen.add(key)
        if i < 100:
            cache.set_many({f"new {i} {j}": 1 for j in range(40)})
    assert stays <= seen


def test_keys_of_other_processes(
    cache: Cache, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = python("store.cache('keys').set('theirs', 1); print('set')")
    assert process.stdout is not None
    assert process.stdout.readline() == "set\n"
    assert cache.keys("their?") == ["theirs"]


def test_delete_pattern(cache: Cache) -> None:
    cache.set_many({f"product:{i}": i for i in range(250)})
    cache.set("user:1", 1)
    assert cache.delete_pattern("product:1*") == 111
    assert cache.delete_pattern("product:1*") == 0
    assert cache.delete_pattern("product:*", itersize=10) == 139
    assert cache.keys() == ["user:1"]


@pytest.mark.parametrize("pattern", [None, 1, b"*", ["*"]])
def test_patterns_that_are_none(cache: Cache, pattern: object) -> None:
    with pytest.raises(TypeError, match="a pattern is a str, not"):
        cache.keys(pattern)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a pattern is a str, not"):
        cache.delete_pattern(pattern)  # type: ignore[arg-type]


@pytest.mark.parametrize("itersize", [0, -1])
def test_wrong_itersize(cache: Cache, itersize: int) -> None:
    with pytest.raises(ValueError, match=f"itersize={itersize}: at least 1"):
        cache.iter_keys("*", itersize)
    with pytest.raises(TypeError):
        cache.iter_keys("*", "many")  # type: ignore[arg-type]


def test_ten_thousand_stars(cache: Cache) -> None:
    key = "a" * 20_000
    cache.set(key, 1)
    assert cache.keys("*" * 10_000) == [key]
    assert cache.keys("a*" * 10_000) == [key]
    assert cache.keys("a*" * 10_000 + "b") == []  # each star tried again would never end
    assert cache.keys("?*" * 10_000 + "b") == []
    assert cache.keys("[ab]*" * 10_000 + "[bc]") == []
    assert cache.keys("[" * 30_000) == []  # nor would a look for the end of each set
    cache.set("[" * 3000 + "]", 1)
    assert cache.keys("?[[]" + "[" * 2998 + "\\]") == ["[" * 3000 + "]"]


# ------------------------------------------------------------------ statistics by prefix


def test_stats_by_prefix(cache: Cache) -> None:
    assert cache.stats_by_prefix() == {}
    cache.set_many({f"product:{i}": b"x" * 100 for i in range(50)})
    cache.set_many({"user:1:name": b"y", "user:2:name": b"y", "alone": b"z", b"\xff:1": b"z"})
    found = cache.stats_by_prefix()
    assert {prefix: stats.entries for prefix, stats in found.items()} == {
        "product": 50,
        "user": 2,
        "": 1,
        r"b'\xff'": 1,
    }
    assert next(iter(found)) == "product"
    assert found["product"].bytes == sum(len(f"product:{i}") + 100 for i in range(50))
    assert cache.stats_by_prefix("/")[""].entries == 54
    assert cache.stats_by_prefix(":name")["user:1"].entries == 1
    few = cache.stats_by_prefix(most=1)
    assert {prefix: stats.entries for prefix, stats in few.items()} == {
        "product": 50,
        "": 1,
        "(other)": 3,
    }
    for wrong in ("", None):
        with pytest.raises(ValueError, match="sep="):
            cache.stats_by_prefix(wrong)  # type: ignore[arg-type]


def test_a_bounded_number_of_prefixes(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("celeriac.prefix_stats.MOST_PREFIXES", 50)
    cache.set_many({f"p{i}:k": i for i in range(3000)})
    found = cache.stats_by_prefix()
    assert len(found) <= 101
    assert sum(stats.entries for stats in found.values()) == 3000


# ------------------------------------------------------------------ patterns


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("", [""], ["a"]),
        ("*", ["", "a", "a\nb"], []),
        ("?", ["a", "\n", "ü"], ["", "ab"]),
        ("a*", ["a", "ab"], ["", "ba"]),
        ("*a", ["a", "ba"], ["", "ab"]),
        ("a*a", ["aa", "aba"], ["a", "ab"]),
        ("*a*b*", ["ab", "xaxbx"], ["ba", "a"]),
        ("a**b", ["ab", "axb"], ["a"]),
        ("*ab*ab", ["abab", "abxab"], ["ab", "aab"]),
        ("[ab]", ["a", "b"], ["c", "ab", ""]),
        ("[a-c]x", ["ax", "cx"], ["dx", "-x"]),
        ("[c-a]", ["b"], ["d"]),
        ("[^a]", ["b"], ["a", ""]),
        ("[!a]", ["b"], ["a"]),
        ("[]]", ["]"], ["[", ""]),
        ("[a-]", ["a", "-"], ["b"]),
        (r"[\]]", ["]"], ["\\"]),
        ("[", ["["], [""]),
        ("[ab", ["[ab"], ["a"]),
        (r"\*", ["*"], ["a", r"\*"]),
        (r"\a", ["a"], [r"\a"]),
        ("\\", ["\\"], [""]),
        ("a.b", ["a.b"], ["axb"]),
        ("A", ["A"], ["a"]),
        ("*.[a-z]?", ["x.py", ".rs"], ["x.c", "py"]),
    ],
)
def test_pattern(pattern: str, fits: list[str], others: list[str]) -> None:
    matches = Pattern(pattern).matches
    assert [text for text in fits if not matches(text)] == []
    assert [text for text in others if matches(text)] == []


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_patterns_are_those_of_fnmatch(pattern: str, text: str) -> None:
    assert Pattern(pattern).matches(text) == fnmatch.fnmatchcase(text, pattern)


@given(st.text(max_size=20), st.text(string.printable, max_size=20))
def test_escaped_text_fits_itself_only(text: str, other: str) -> None:
    pattern = Pattern(escape(text))
    assert pattern.matches(text)
    assert pattern.matches(other) == (text == other)
