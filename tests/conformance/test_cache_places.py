"""Names of caches are no limit; only so many have entries at a time, and the error says so."""

from __future__ import annotations

import pytest

from celeriac import Cache, NotEnoughMemory, Store


def test_two_thousand_caches_in_turn(store: Store) -> None:
    for version in range(2000):
        cache = store.cache("swept", version=version)
        assert cache.get("key") is None
        cache.set("key", version)
        assert cache.get("key") == version
        cache.delete("key")
    assert store.cache("swept", version=3).get("key") is None


def test_an_old_handle_finds_its_own_again(store: Store) -> None:
    """Its place has been given to others, many times, and its name has a new one."""
    old = store.cache("old")
    other = store.cache("old")
    old.set("key", "before")
    old.delete("key")
    for version in range(600):
        one = store.cache("swept", version=version)
        one.set("key", "theirs")
        assert old.get("key") is None
        assert len(old) == 0
        assert old.keys() == []
        assert not old.delete("key")
        assert not old.touch("key", 5)
        assert old.cull(5) == 0
        old.clear()
        assert one.get("key") == "theirs"
        one.delete("key")
    assert old.add("key", 1)
    assert other.incr("key") == 2
    assert store.cache("old").get("key") == 2
    assert len(other) == 1
    assert other.stats().entries == 1


def test_expired_entries_hold_no_place(store: Store) -> None:
    for version in range(400):
        store.cache("swept", version=version).set("key", version, ttl=0.000001)
    store.cache("swept", version="last").set("key", 1)


def test_cleared_caches_hold_no_place(store: Store) -> None:
    for version in range(400):
        cache = store.cache("swept", version=version)
        cache.set("key", version)
        cache.clear()


def test_full_of_caches_with_entries(store: Store) -> None:
    caches: list[Cache] = []

    def fill() -> None:
        for i in range(400):
            caches.append(store.cache("many", version=i))
            caches[-1].set("key", i)

    with pytest.raises(NotEnoughMemory, match=r"128 places .* has entries: need one, have none"):
        fill()
    assert len(caches) >= 105
    assert [cache.get("key") for cache in caches] == list(range(len(caches)))
    # what the library needs has room all the same
    assert store.cache("many", version=0).get_or_set("new", lambda: 1) == 1
    caches[0].set("tagged", 1, tags=["t"])
    caches[0].invalidate("t")
    assert caches[0].get("tagged") is None
    assert store.table("celeriac.celery.results").add("key", 1)
    caches[7].clear()
    store.cache("another").set("key", 1)
    assert caches[7].get("key") is None
    with pytest.raises(NotEnoughMemory, match="128 places"):
        caches[7].set("key", 1)


def test_tables_keep_their_places(store: Store) -> None:
    table = store.table("empty")
    seen = table.change_count("key")
    for version in range(400):
        cache = store.cache("swept", version=version)
        cache.set("key", 1)
        cache.delete("key")
    store.table("empty").set("key", 1)
    assert table.get("key") == 1
    assert table.change_count("key") != seen


def test_overflow_keeps_what_finds_no_place(store: Store) -> None:
    for i in range(200):
        store.cache(f"o{i}", overflow="celeriac.over").set(f"key{i}", i)
    caches = [store.cache(f"o{i}", overflow="celeriac.over") for i in range(200)]
    assert [cache.get(f"key{i}") for i, cache in enumerate(caches)] == list(range(200))
    assert len(store.cache("celeriac.over")) == 144
    assert [cache._clear_alone() for cache in caches] == [True] * 56 + [False] * 144
    assert [i for i, cache in enumerate(caches) if cache.get(f"key{i}") is None] == list(range(56))


def test_a_bound_comes_along_to_another_place(store: Store) -> None:
    small = store.cache("small", max_entries=10)
    for i in range(300):  # empty as it is, it loses its place
        store.cache(f"n{i}")
    for i in range(50):
        small.set(f"k{i}", i)
    assert len(small) == 10


def test_a_bound_is_not_left_to_the_next_name(store: Store) -> None:
    for i in range(300):
        store.cache(f"small{i}", max_entries=3)
    caches = [store.cache(f"large{i}") for i in range(50)]
    for cache in caches:
        cache.set_many({f"k{i}": i for i in range(20)})
    assert [len(cache) for cache in caches] == [20] * 50


def test_a_first_limit_counts_what_is_there(store: Store) -> None:
    cache, other = store.cache("c"), store.cache("other")
    for i in range(3000):
        cache.set(f"k{i}", f"{i}|".ljust(i % 300, "v"))
        other.set(f"k{i}", i)
    cache.set("large", "l" * 200_000)
    limited = store.cache("c", max_entries=1000)
    assert len(cache) == 1000
    assert limited.get("large") == "l" * 200_000
    for key, value in limited.get_many([f"k{i}" for i in range(3000)]).items():
        assert value == f"{key[1:]}|".ljust(int(key[1:]) % 300, "v")
    for i in range(1000):
        limited.set(f"n{i}", i)
        assert len(limited) <= 1000
    stats = cache.stats()
    assert stats.evictions == stats.sets - len(cache)
    assert len(other.get_many([f"k{i}" for i in range(3000)])) == 3000
