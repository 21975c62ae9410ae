"""Many prefixes and versions: more than a store has places for, all alive, or one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery

import celeriac

Make = Callable[..., Any]


def everything_works(cache: Any, url: str) -> None:
    """What needs a namespace of its own, opened for the first time."""
    calls: list[int] = []
    for _ in range(2):
        assert cache.get_or_set("computed", lambda: calls.append(1) or "v", 60) == "v"
    assert calls == [1]
    with cache.lock("lock", timeout=10) as lock:
        assert lock.owned()
        assert not cache.lock("lock", blocking=False).acquire()
    cache.set("tagged", 1, tags=["t"])
    assert cache.get("tagged") == 1
    cache.invalidate("t")
    assert cache.get("tagged") is None
    app = Celery("places", broker=f"celeriac+{url}", backend=f"celeriac+{url}")
    app.backend.store_result("an-id", {"answer": 42}, "SUCCESS")
    assert app.AsyncResult("an-id").get(timeout=10) == {"answer": 42}
    store = celeriac.connect(url)
    calls.clear()
    for _ in range(2):
        assert store.cache("plain").get_or_set("key", lambda: calls.append(1) or "v") == "v"
    assert calls == [1]


def test_a_thousand_versions_in_turn(backend: Make, location: str) -> None:
    cache = backend()
    cache.set("key", "value", 500)
    for version in range(1, 1001):
        assert cache.incr_version("key", version=version) == version + 1
        assert cache.get("key", version=version) is None
    assert cache.get("key", version=1001) == "value"
    assert 495 <= cache.ttl("key", version=1001) <= 500
    everything_works(cache, location)


def test_thousands_of_versions_alive(backend: Make, location: str) -> None:
    cache, other = backend(), backend()
    versions = range(3000)
    for version in versions:
        cache.set("key", version, version=version)
    assert [other.get("key", version=v) for v in versions] == list(versions)
    everything_works(cache, location)
    for version in (0, 100, 2999):
        other.clear_prefix(version=version)
    gone = [v for v in versions if cache.get("key", version=v) is None]
    assert gone == [0, 100, 2999]
    other.clear()
    assert [v for v in versions if cache.get("key", version=v) is not None] == []


def test_five_hundred_prefixes(backend: Make, location: str) -> None:
    caches = [backend(KEY_PREFIX=f"site{i}") for i in range(500)]
    for i, cache in enumerate(caches):
        cache.set("key", i)
        cache.set("tagged", i, tags=["t"])
    again = [backend(KEY_PREFIX=f"site{i}") for i in range(500)]
    assert [cache.get("key") for cache in again] == list(range(500))
    for i in (3, 333):
        again[i].clear_prefix()
        again[i + 1].invalidate("t")
    assert [i for i, cache in enumerate(caches) if cache.get("key") is None] == [3, 333]
    assert [i for i, c in enumerate(caches) if c.get("tagged") is None] == [3, 4, 333, 334]
    everything_works(backend(KEY_PREFIX="new"), location)


def test_clear_heals(backend: Make) -> None:
    """After it a new pair has a place of its own again: its prefix is cleared in one step."""
    cache = backend()
    for version in range(300):
        cache.set("key", version, version=version)
    late = backend(KEY_PREFIX="late")
    late.set("key", 1)
    assert not any("late" in name for name in cache.store.caches())
    cache.clear()
    assert late.get("key") is None
    late.set("key", 2)
    assert backend(KEY_PREFIX="late").get("key") == 2
    assert "django:late:1" in cache.store.caches()
    assert cache.store.cache("django:late:1").stats().entries == 1


def test_no_old_value_comes_back_from_the_common_place(backend: Make) -> None:
    """A pair that was kept with others, then had a place, is kept with others again."""
    cache, crowd, other = (
        backend(KEY_PREFIX="pair"),
        backend(KEY_PREFIX="crowd"),
        backend(KEY_PREFIX="pair"),
    )
    for _ in range(3):
        for version in range(300):
            crowd.set("key", 1, version=version)
        cache.set("key", "old")
        assert other.get("key") == "old"
        crowd.clear()
        assert other.get("key") is None
        cache.set("key", "own")
        assert other.get("key") == "own"
        other.delete("key")
        for version in range(300):
            crowd.set("key", 1, version=version)
        assert cache.get("key") is None
        assert other.get("key") is None
        crowd.clear()


def test_bounds_by_count_are_of_those_that_have_a_place(backend: Make) -> None:
    """As docs/settings.md says: of the others MAX_ENTRIES bounds the sum, `max_entries` nothing."""
    for option, others in (("max_entries", 30 * 24), ("MAX_ENTRIES", 10)):
        cache = backend(OPTIONS={option: 10})
        for version in range(80):
            for number in range(30):
                cache.set(f"k{number}", number, version=version)
        counts = [len(cache.keys(version=version)) for version in range(80)]
        assert max(counts[:56]) <= 10
        assert sum(counts[56:]) <= others, option
        assert (max(counts[56:]) == 30) is (option == "max_entries")
        own = backend(OPTIONS={option: 10}, KEY_FUNCTION=lambda *parts: "/".join(map(str, parts)))
        for number in range(30):
            own.set(f"k{number}", number)
        assert (len(own.keys()) == 30) is (option == "max_entries")
        cache.clear()
