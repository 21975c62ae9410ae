"""The calls beyond Django's: patterns, prefixes, tags, locks, one computation for all."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import celeriac
from celeriac.django import redis_compat
from celeriac.django.cache import CeleriacCache

Make = Callable[..., CeleriacCache]


def test_every_call_has_an_async_twin() -> None:
    for name in ("keys", "iter_keys", "delete_pattern", "invalidate", "clear_prefix"):
        assert "a" + name in vars(CeleriacCache), name


# ---- patterns


def test_keys(backend: Make) -> None:
    cache, other, newer = backend(), backend(KEY_PREFIX="site*"), backend(VERSION=2)
    cache.set_many({"product:1": 1, "product:2": 2, "user:1": 3})
    other.set("product:9", 9)
    newer.set("product:8", 8)
    assert sorted(cache.keys("product:*")) == ["product:1", "product:2"]
    assert sorted(cache.keys()) == ["product:1", "product:2", "user:1"]
    assert cache.keys("product:*", version=2) == newer.keys() == ["product:8"]
    assert other.keys("*") == ["product:9"]
    assert sorted(cache.iter_keys("*", itersize=1)) == ["product:1", "product:2", "user:1"]
    assert cache.delete_pattern("product:*") == 2
    assert cache.keys() == ["user:1"]
    assert cache.delete_pattern("*", itersize=2) == 1
    assert (other.keys(), newer.keys()) == (["product:9"], ["product:8"])


def test_delete_pattern_of_another_prefix(backend: Make) -> None:
    cache, other = backend(KEY_PREFIX="one"), backend(KEY_PREFIX="two*")
    ours = backend(KEY_FUNCTION=make_key, KEY_PREFIX="one")
    for each in (cache, other, ours):
        each.set_many({"a1": 1, "a2": 2, "b": 3})
        each.set("a3", 1, version=2)
    assert cache.delete_pattern("a*", prefix="two*") == 2
    assert cache.delete_pattern("a*", 2, "two*") == 1
    assert cache.delete_pattern("a*", prefix="nobody's") == 0
    assert other.keys() == ["b"]
    assert sorted(cache.keys()) == ["a1", "a2", "b"]
    assert other.delete_pattern("*1", prefix="one", itersize=1) == 1
    assert asyncio.run(other.adelete_pattern("*2", prefix="one")) == 1
    assert cache.keys() == ["b"]
    assert backend(KEY_FUNCTION=make_key).delete_pattern("a*", prefix="one") == 2
    assert ours.keys("*") == ["one#1#b"]
    for wrong in (5, b"one"):
        with pytest.raises(TypeError, match="prefix is a str, not"):
            cache.delete_pattern("*", prefix=wrong)  # type: ignore[arg-type]
    assert cache.keys() == ["b"]


def make_key(key: str, prefix: str, version: Any) -> str:
    return f"{prefix}#{version}#{key}"


def reverse_key(key: str) -> str:
    return key.split("#", 2)[2]


def test_reverse_key_function(backend: Make) -> None:
    cache = backend(KEY_FUNCTION=make_key, REVERSE_KEY_FUNCTION=reverse_key)
    cache.set_many({"foo-aa": 1, "foo-bb": 2})
    assert cache.delete_pattern("*foo-a*") == 1
    assert cache.keys("foo*") == ["foo-bb"]
    assert cache.store.cache("celeriac.django.others").keys() == ["#1#foo-bb"]
    with pytest.raises(celeriac.ConfigurationError, match="REVERSE_KEY_FUNCTION"):
        backend(REVERSE_KEY_FUNCTION=5)


@pytest.mark.parametrize("pattern", [None, 5, b"*"])
def test_wrong_patterns(backend: Make, pattern: Any) -> None:
    with pytest.raises(TypeError, match="a pattern is a str"):
        backend().keys(pattern)
    with pytest.raises(TypeError, match="a pattern is a str"):
        backend().delete_pattern(pattern)


# ---- prefixes and versions


def test_clear_prefix(backend: Make) -> None:
    one, two, newer = backend(), backend(KEY_PREFIX="two"), backend(VERSION=2)
    own = backend(KEY_FUNCTION=make_key)
    for cache in (one, two, newer, own):
        cache.set("key", cache.key_prefix)
    two.set("key", "other version", version=5)
    two.clear_prefix()
    assert two.get("key") is None
    assert two.get("key", version=5) == "other version"
    assert (one.get("key"), newer.get("key"), own.get("key")) == ("", "", "")
    two.clear_prefix(version=5)
    assert two.get("key", version=5) is None
    own.clear_prefix()
    assert own.get("key") is None
    one.clear_prefix()
    assert one.get("key") is None
    assert newer.get("key") == ""


def test_clear_is_for_all_prefixes_and_versions_and_for_nothing_else(backend: Make) -> None:
    caches = [backend(), backend(KEY_PREFIX="two"), backend(VERSION=2)]
    caches.append(backend(KEY_FUNCTION=make_key))
    for cache in caches:
        cache.set("key", 1)
    store = caches[0].store
    store.cache("beside").set("key", 1)
    store.queue("q").put(b"stays")
    caches[1].clear()
    assert [cache.get("key") for cache in caches] == [None] * 4
    assert store.cache("beside").get("key") == 1
    assert store.queue("q").counts().ready == 1


def test_aliases_of_one_location_share_by_prefix_and_version(backend: Make) -> None:
    one, two = backend(), backend(VERSION=2)
    one.set("key", "one")
    assert two.get("key", version=1) == "one"
    two.set("key", "two")
    assert one.get("key", version=2) == "two"
    assert one.get("key", version="2") == "two"  # the key is the same text
    assert one.get_many(["key"], version=2) == {"key": "two"}
    assert one.incr_version("key", 5) == 6
    assert two.get("key", version=6) == "one"


def test_more_versions_than_a_store_has_namespaces(backend: Make) -> None:
    cache = backend()
    for version in range(200):
        cache.set("key", version, version=version)
    other = backend()
    assert [other.get("key", version=version) for version in range(200)] == list(range(200))
    other.clear_prefix(version=199)
    assert cache.get("key", version=199) is None
    assert cache.get("key", version=198) == 198
    other.clear()
    assert [cache.get("key", version=version) for version in range(200)] == [None] * 200


def test_incr_version_keeps_timeout_and_tags(backend: Make) -> None:
    cache = backend()
    cache.set("key", [1], 500, tags=["t"])
    assert cache.incr_version("key") == 2
    assert cache.ttl("key", version=2) == 500
    assert cache.incr_version("key", 0, version=2) == 2
    assert cache.get("key", version=2) == [1]
    cache.invalidate("t", version=2)
    assert cache.get("key", version=2) is None
    with pytest.raises(ValueError, match="'key' not found"):
        cache.incr_version("key", version=2)


def test_touch_none_persists(backend: Make) -> None:
    cache = backend()
    cache.set("key", 1, 10)
    assert cache.touch("key", None) is True
    assert cache.ttl("key") is None


# ---- tags


def test_tags(backend: Make) -> None:
    cache, other = backend(), backend(KEY_PREFIX="other")
    cache.set("a", 1, tags=["t"])
    cache.add("b", 2, tags=["t"])
    cache.set_many({"c": 3}, tags=["t", "u"])
    cache.set("d", 4, nx=True, tags=["u"])
    other.set("a", 5, tags=["t"])
    assert cache.get_many("abcd") == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert cache.incr("a") == 2
    assert cache.has_key("a") is True
    cache.invalidate("t")
    assert cache.get_many("abcd") == {"d": 4}
    assert cache.has_key("a") is False
    assert cache.get("a", "gone") == "gone"
    assert "a" not in cache
    assert cache.add("a", "new") is True
    assert cache.get("a") == "new"
    assert other.get("a") == 5
    with pytest.raises(ValueError, match="'b' not found"):
        cache.incr("b")


@pytest.mark.parametrize(
    "options",
    [
        {"serializer": "json"},
        {"compressor": "zlib", "compress_above": 10},
        {"serializer": "pickle"},
    ],
)
def test_serializer_and_compressor(backend: Make, options: dict[str, Any]) -> None:
    cache = backend(OPTIONS=options)
    value = {"text": "x" * 5000}
    cache.set("a", value)
    cache.set_many({"b": value, "n": 1})
    assert cache.add("a", 1) is False
    assert backend(OPTIONS=options).get_many(["a", "b"]) == {"a": value, "b": value}
    assert cache.get_or_set("c", lambda: value) == cache.get("c") == value
    assert cache.incr("n") == 2


# ---- get_or_set


def test_get_or_set_coalesces(backend: Make) -> None:
    calls, results = [], []

    def compute() -> str:
        calls.append(1)
        time.sleep(0.1)
        return "value"

    def ask() -> None:
        results.append(backend().get_or_set("key", compute, 60, wait=60))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == ["value"] * 20
    assert len(calls) == 1
    assert backend().ttl("key") == 60


def test_what_is_set_and_deleted_while_it_is_computed_does_not_come_back(backend: Make) -> None:
    cache = backend()

    def compute() -> str:
        other = backend()
        other.set("key", "newer")
        assert other.delete("key")
        return "old"

    assert cache.get_or_set("key", compute, 60) == "old"
    assert cache.get("key") is None
    assert cache.get_or_set("key", "new", 60) == cache.get("key") == "new"


def test_get_or_set_options(backend: Make) -> None:
    cache = backend()
    assert cache.get_or_set("key", "old", 60, stale=100, tags=["t"], wait=1, early=1.0) == "old"
    assert cache.ttl("key") == 60

    def fails() -> None:
        raise OSError("away")

    full = cache.make_key("key")
    cache._at()._core.touch(full, 99)
    assert cache.get("key") is None
    assert cache.get_or_set("key", fails, 60, stale_on_error=100) == "old"
    cache.invalidate("t")
    with pytest.raises(OSError, match="away"):
        cache.get_or_set("key", fails, 60, stale_on_error=100)
    for tolerant in (cache, backend(OPTIONS={"IGNORE_EXCEPTIONS": True})):
        with pytest.raises(celeriac.DeadlockError, match="that computes 'key' asks"):
            tolerant.get_or_set("key", lambda each=tolerant: each.get_or_set("key", list))
    assert cache.get_or_set("zero", "value", 0) == "value"
    assert cache.get("zero") is None


@pytest.mark.parametrize("is_async", [False, True])
def test_get_or_set_without_a_store(backend: Make, is_async: bool) -> None:
    cache = backend(OPTIONS={"create": False, "IGNORE_EXCEPTIONS": True})
    calls = []

    def compute() -> str:
        calls.append(1)
        return "value"

    def get_or_set(default: Any) -> Any:
        if is_async:
            return asyncio.run(cache.aget_or_set("key", default))
        return cache.get_or_set("key", default)

    assert get_or_set(compute) == "value"
    assert len(calls) == 1
    assert get_or_set("plain") == "plain"
    assert cache.ignored_exceptions == 2

    def raises() -> None:
        raise celeriac.StoreNotFound("from the function")

    with pytest.raises(celeriac.StoreNotFound, match="from the function"):
        get_or_set(raises)


def test_get_or_set_of_a_value_that_does_not_fit(backend: Make) -> None:
    big = bytes(20 << 20)
    cache = backend(OPTIONS={"memory": "8M", "IGNORE_EXCEPTIONS": True})
    assert cache.get_or_set("key", lambda: big) == big
    assert cache.ignored_exceptions == 1
    with pytest.raises(celeriac.ValueTooLarge):
        backend(OPTIONS={"memory": "8M"}).get_or_set("key", lambda: big)


def test_the_warning_comes_once_and_names_the_caller(backend: Make) -> None:
    from django.core.cache.backends.base import CacheKeyWarning

    with pytest.warns(CacheKeyWarning) as caught:
        backend().get_or_set("a key", 1)
    assert [warning.filename for warning in caught] == [__file__]


# ---- async


def test_async_twins(backend: Make) -> None:
    cache = backend()

    async def calls() -> None:
        await cache.aset("a", 1, tags=["t"])
        await cache.aset_many({f"k{i}": i for i in range(600)})
        assert len(await cache.akeys("k*")) == 600
        assert [key async for key in cache.aiter_keys("a")] == ["a"]
        await cache.ainvalidate("t")
        assert await cache.aget("a") is None
        assert await cache.adelete_pattern("k*") == 600
        await cache.aset("b", 1)
        await cache.aclear_prefix()
        assert await cache.aget("b") is None

    asyncio.run(calls())


def test_aget_or_set_coalesces(backend: Make) -> None:
    cache = backend()
    calls = []

    async def compute() -> int:
        calls.append(1)
        await asyncio.sleep(0.05)
        return 5

    async def main() -> None:
        asked = [cache.aget_or_set("key", compute, stale=10, wait=60) for _ in range(20)]
        assert await asyncio.gather(*asked) == [5] * 20

    asyncio.run(main())
    assert len(calls) == 1


# ---- settings of django-redis


def test_settings_of_django_redis(
    backend: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SimpleNamespace(
        configured=True,
        DJANGO_REDIS_IGNORE_EXCEPTIONS=True,
        DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS=True,
        DJANGO_REDIS_LOGGER="my.logger",
        DJANGO_REDIS_SCAN_ITERSIZE=2,
    )
    monkeypatch.setattr(redis_compat, "settings", settings)
    cache = backend(OPTIONS={"create": False})
    assert cache.get("key") is None
    assert cache.get("key") is None
    assert [(r.name, r.levelname) for r in caplog.records] == [("my.logger", "ERROR")] * 2
    with pytest.raises(celeriac.StoreNotFound):
        backend(OPTIONS={"create": False, "IGNORE_EXCEPTIONS": False}).get("key")
    cache = backend()
    cache.set_many({str(i): i for i in range(20)})
    assert len(cache.keys()) == 20


def test_an_error_that_is_not_ignored(backend: Make) -> None:
    with pytest.raises(celeriac.StoreNotFound):
        backend(OPTIONS={"create": False, "IGNORE_EXCEPTIONS": False}).get("key")


# ---- decorators

DECORATED = """
import asyncio, sys
from django.conf import settings
BACKEND = sys.argv[2]
settings.configure(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": sys.argv[1]}})
import celeriac
from django.core.cache import cache
calls = []

@celeriac.cached(60, key="k:{x}", tags=["t"], stale=5)
def function(x):
    calls.append(x)
    return x

@celeriac.cached(key="a:{x}")
async def coroutine(x):
    calls.append(x)
    return x

@celeriac.evict("k:*", tags=["t"])
def change(): ...

assert (function(1), function(1), calls) == (1, 1, [1])
assert (cache.get("k:1"), cache.ttl("k:1")) == (1, 60)
assert asyncio.run(coroutine(2)) == asyncio.run(coroutine(2)) == cache.get("a:2") == 2
assert len(calls) == 2
change()
assert cache.keys() == ["a:2"]
assert function.refresh(1) == 1 and function.invalidate(1) is True
cache.store.destroy(force=True)
"""


def run_decorated(location: str, backend: str) -> str:
    command = [sys.executable, "-c", DECORATED, location, backend]
    return subprocess.run(command, capture_output=True, text=True, timeout=60).stderr


def test_decorators_use_djangos_default_cache(location: str) -> None:
    assert run_decorated(location, "celeriac.django.cache.CeleriacCache") == ""


def test_another_default_cache_of_django_is_none_of_ours(location: str) -> None:
    said = run_decorated(location, "django.core.cache.backends.locmem.LocMemCache")
    assert "ConfigurationError: no default cache" in said


# ---- deletions during a computation


@pytest.mark.parametrize("how", ["delete", "adelete", "delete_many", "clear", "clear_prefix"])
@pytest.mark.parametrize("params", [{}, {"KEY_PREFIX": "p"}, {"KEY_FUNCTION": make_key}])
def test_what_is_deleted_meanwhile_does_not_come_back(
    backend: Make, how: str, params: dict[str, Any]
) -> None:
    if how == "clear_prefix" and "KEY_FUNCTION" in params:
        return  # it goes through the keys that are there
    cache, other = backend(**params), backend(**params)

    def compute() -> str:
        if how == "adelete":
            asyncio.run(other.adelete("key"))
        elif how == "delete_many":
            other.delete_many(["key"])
        else:
            getattr(other, how)(*(["key"] if how == "delete" else []))
        return "old"

    assert cache.get_or_set("key", compute) == "old"
    assert cache.get("key") is None
    assert cache.get_or_set("key", lambda: "new") == "new"
    assert cache.get("key") == "new"
