"""Caches: get_or_set in one process: what is computed, kept, given when it is stale or fails."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac import Cache, Store, fill


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache("filled")


class Function:
    """Counts its calls; gives or raises what it is told."""

    def __init__(self, result: Any = "value") -> None:
        self.result = result
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def expire(cache: Cache, key: str, grace: float, ago: float) -> None:
    """As if the value's ttl had passed so many seconds ago."""
    assert cache._core.touch(key, grace - ago)


def test_value_or_function(cache: Cache) -> None:
    function = Function([1, 2])
    assert cache.get_or_set("k", function) == [1, 2]
    assert cache.get_or_set("k", function) == [1, 2]
    assert function.calls == 1
    assert cache.get_or_set("plain", "value", 60) == "value"
    assert 59 < (cache.ttl("plain") or 0) <= 60
    assert 299 < (cache.ttl("k") or 0) <= 300
    assert cache.get_or_set("ever", function, None) == [1, 2]
    assert cache.ttl("ever") is None


def test_none_is_a_value(cache: Cache) -> None:
    function = Function(None)
    assert cache.get_or_set("k", function) is None
    assert cache.get_or_set("k", function) is None
    assert function.calls == 1
    assert "k" in cache
    assert cache.get_or_set("plain", None) is None
    assert "plain" in cache


def test_zero_ttl_keeps_nothing(cache: Cache) -> None:
    function = Function()
    for ttl in (0, -1):
        assert cache.get_or_set("k", function, ttl) == "value"
    assert function.calls == 2
    assert "k" not in cache


def test_what_the_function_raises(cache: Cache) -> None:
    function = Function(KeyError("mine"))
    for calls in (1, 2):
        with pytest.raises(KeyError, match="mine"):
            cache.get_or_set("k", function)
        assert function.calls == calls
    assert "k" not in cache
    function.result = "now"
    assert cache.get_or_set("k", function) == "now"


def test_a_set_during_the_computation_wins(cache: Cache) -> None:
    def compute() -> str:
        cache.set("k", "set meanwhile")
        return "computed"

    assert cache.get_or_set("k", compute) == "set meanwhile"
    assert cache.get("k") == "set meanwhile"


def test_the_longest_key(cache: Cache) -> None:
    assert cache.get_or_set("k" * 65_535, lambda: 1) == 1
    assert cache.get_or_set("k" * 65_535, lambda: 2) == 1
    assert cache.delete("k" * 65_535)
    with pytest.raises(celeriac.ValueTooLarge):
        cache.get_or_set("k" * 65_536, lambda: 1)


def test_without_lock(cache: Cache) -> None:
    def compute() -> str:
        return cache.get_or_set("k", lambda: "inner", lock=False) + " seen by outer"

    assert cache.get_or_set("k", compute, lock=False) == "inner"


def test_statistics(cache: Cache) -> None:
    cache.get_or_set("k", 1)
    cache.get_or_set("k", 1)
    cache.get_or_set("k", 1)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.sets) == (2, 1, 1)


def test_bound_by_count(store: Store) -> None:
    cache = store.cache("few", max_entries=3)
    for i in range(10):
        assert cache.get_or_set(f"k{i}", i) == i
    assert len(cache) <= 3


# ------------------------------------------------------------------ deadlock


def test_the_function_asks_for_its_own_key(cache: Cache) -> None:
    def compute() -> Any:
        return cache.get_or_set("k", compute, wait=60)

    began = time.monotonic()
    with pytest.raises(
        celeriac.DeadlockError, match="computes 'k' asks the cache for the same key"
    ):
        cache.get_or_set("k", compute)
    with pytest.raises(celeriac.DeadlockError, match=r"computes b'\\x00\\xff' asks"):
        cache.get_or_set(b"\0\xff", lambda: cache.get_or_set(b"\0\xff", list))
    assert time.monotonic() - began < 50  # it did not wait for itself
    assert cache.get_or_set("k", Function()) == "value"


def test_through_another_key_and_another_handle(
    cache: Cache, connect: Callable[..., Store]
) -> None:
    other = connect().cache("filled")

    def inner() -> Any:
        return other.get_or_set("outer", Function())

    with pytest.raises(celeriac.DeadlockError, match="'outer'"):
        cache.get_or_set("outer", lambda: other.get_or_set("inner", inner))


def test_other_keys_and_later_calls_are_fine(store: Store, cache: Cache) -> None:
    def compute() -> Any:
        assert cache.get("outer") is None
        return [cache.get_or_set("inner", 1), store.cache("other").get_or_set("outer", Function(2))]

    assert cache.get_or_set("outer", compute) == [1, 2]
    cache.delete("outer")
    assert cache.get_or_set("outer", compute) == [1, 2]


# ------------------------------------------------------------------ stale


def test_plain_reads_never_see_a_stale_value(cache: Cache) -> None:
    cache.get_or_set("k", "old", 60, stale=100)
    assert cache.get("k") == "old"
    assert 59 < (cache.ttl("k") or 0) <= 60
    expire(cache, "k", 100, 1)
    assert cache.get("k") is None
    assert cache.get_many(["k"]) == {}
    assert "k" not in cache
    assert cache.keys() == []
    with pytest.raises(KeyError):
        cache.ttl("k")
    assert cache.replace("k", 1) is False
    assert cache.add("k", "new") is True
    assert cache.get("k") == "new"


def test_stale_while_another_computes(cache: Cache) -> None:
    cache.get_or_set("k", "old", 60, stale=100)
    expire(cache, "k", 100, 1)
    computing, go_on = threading.Event(), threading.Event()

    def compute() -> str:
        computing.set()
        assert go_on.wait(10)
        return "new"

    got = []
    thread = threading.Thread(
        target=lambda: got.append(cache.get_or_set("k", compute, 60, stale=100))
    )
    thread.start()
    assert computing.wait(10)
    never = Function(RuntimeError("another computes"))
    for _ in range(3):
        assert cache.get_or_set("k", never, 60, stale=100) == "old"
    go_on.set()
    thread.join()
    assert got == ["new"]
    assert cache.get("k") == "new"
    assert never.calls == 0


def test_too_stale(cache: Cache) -> None:
    cache.get_or_set("k", "old", 60, stale=100)
    expire(cache, "k", 100, 50)
    assert cache.get_or_set("k", Function("new"), 60, stale=20) == "new"
    assert cache.get("k") == "new"


def test_values_set_otherwise_have_no_grace(cache: Cache) -> None:
    cache.set("k", "old", 0.01)
    time.sleep(0.02)
    assert cache.get_or_set("k", Function("new"), stale=100, stale_on_error=100) == "new"


def test_stale_on_error(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    cache.get_or_set("k", "old", 60, stale_on_error=100)
    expire(cache, "k", 100, 1)
    broken = Function(OSError("the service is away"))
    with caplog.at_level(logging.WARNING, "celeriac"):
        assert cache.get_or_set("k", broken, 60, stale_on_error=100) == "old"
    assert broken.calls == 1
    assert "the service is away" in caplog.text
    assert cache.get("k") is None  # it is still stale
    with pytest.raises(OSError, match="away"):
        cache.get_or_set("k", broken, 60)
    assert cache.get_or_set("k", Function("new"), 60, stale_on_error=100) == "new"
    assert cache.get("k") == "new"


def test_stale_for_too_long_on_error(cache: Cache) -> None:
    cache.get_or_set("k", "old", 60, stale_on_error=100)
    expire(cache, "k", 100, 60)
    with pytest.raises(OSError, match="away"):
        cache.get_or_set("k", Function(OSError("away")), 60, stale=10, stale_on_error=50)


def test_interrupts_are_no_errors(cache: Cache) -> None:
    cache.get_or_set("k", "old", 60, stale_on_error=100)
    expire(cache, "k", 100, 1)

    def compute() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_set("k", compute, 60, stale_on_error=100)
    assert cache.get_or_set("k", Function("new"), 60) == "new"


# ------------------------------------------------------------------ early refresh


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets every random number be this one. 1 - e**-x makes the gap x * delta * beta."""

    def always(number: float) -> None:
        monkeypatch.setattr(fill.random, "random", lambda: number)

    return always


def test_early_refresh(cache: Cache, draw: Callable[[float], None]) -> None:
    def slow() -> str:
        time.sleep(0.05)
        return "old"

    draw(0.0)
    assert cache.get_or_set("k", slow, 1000, early=1.0) == "old"
    never = Function(RuntimeError("too early"))
    assert cache.get_or_set("k", never, 1000, early=1.0) == "old"
    draw(1 - 1e-9)  # a gap of 20.7 times 0.05 s: about a second
    assert cache.get_or_set("k", never, 1000, early=1.0) == "old"
    assert never.calls == 0
    assert cache.get_or_set("k", never, 1000) == "old"  # not unless it is asked for
    again = Function("new")
    assert cache.get_or_set("k", again, 1000, early=2000.0) == "new"
    assert again.calls == 1
    assert cache.get("k") == "new"


def test_an_early_refresh_that_fails_harms_nobody(
    cache: Cache, draw: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    draw(1 - 1e-9)
    cache.get_or_set("k", lambda: time.sleep(0.001), 500, early=100.0)
    broken = Function(OSError("away"))
    assert cache.get_or_set("k", broken, 500, early=1e6) is None
    assert broken.calls == 1
    assert "away" in caplog.text


def test_others_do_not_wait_for_an_early_refresh(
    cache: Cache, draw: Callable[[float], None]
) -> None:
    draw(1 - 1e-9)
    cache.get_or_set("k", lambda: "old", 100, early=1e9)

    def compute() -> str:
        got = []
        thread = threading.Thread(
            target=lambda: got.append(cache.get_or_set("k", Function(OSError()), 100, early=1e9))
        )
        thread.start()
        thread.join()
        assert got == ["old"]
        return "new"

    assert cache.get_or_set("k", compute, 100, early=1e9) == "new"


# ------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize("name", ["wait", "stale", "stale_on_error", "early"])
@pytest.mark.parametrize("value", [-1, float("nan"), "1", True, [1]])
def test_wrong_seconds(cache: Cache, name: str, value: Any) -> None:
    never = Function()
    with pytest.raises((TypeError, ValueError), match=name):
        cache.get_or_set("k", never, **{name: value})
    assert never.calls == 0


def test_wrong_key_and_value(cache: Cache) -> None:
    with pytest.raises(TypeError, match="a key is str or bytes, not int"):
        cache.get_or_set(5, Function())  # type: ignore[arg-type]
    with pytest.raises(celeriac.ValueTooLarge):
        cache.get_or_set("k" * 70_000, Function())
    with pytest.raises(celeriac.SerializationError):
        cache.get_or_set("k", lambda: threading.Lock())
    assert cache.get_or_set("k", Function()) == "value"  # its flight has ended
    never = Function()
    with pytest.raises(ValueError, match="a number of seconds"):
        cache.get_or_set("other", never, float("nan"))
    with pytest.raises(TypeError, match="a number of seconds or None, not str"):
        cache.get_or_set("other", never, "60")  # type: ignore[arg-type]
    assert never.calls == 0
