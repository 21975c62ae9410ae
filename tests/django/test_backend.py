"""What the backend promises beyond Django's own suite: errors, options, numbers, culling, clear."""

from __future__ import annotations

import asyncio
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.core.cache.backends.base import CacheKeyWarning

import celeriac
from celeriac.django.cache import CeleriacCache

Make = Callable[..., CeleriacCache]


# ---- what is wrong in settings is said at once, and by name


def test_an_unknown_option_is_named_with_the_known_ones(backend: Make) -> None:
    with pytest.raises(celeriac.ConfigurationError, match="'memroy'") as caught:
        backend(OPTIONS={"memroy": "64M"})
    for name in ("MAX_ENTRIES", "IGNORE_EXCEPTIONS", "memory", "serializer"):
        assert name in str(caught.value)


@pytest.mark.parametrize("location", ["", None, ["shm://a", "shm://b"], "app", "tcp://app"])
def test_a_location_that_is_no_url_is_refused(location: Any) -> None:
    with pytest.raises(celeriac.ConfigurationError, match="shm://"):
        CeleriacCache(location, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("MAX_ENTRIES", wrong) for wrong in ("many", -5, "-5", 3.9, True)],
        *[("CULL_FREQUENCY", wrong) for wrong in ("often", -1, 0.5, False)],
        ("IGNORE_EXCEPTIONS", "yes"),
    ],
)
def test_an_option_of_the_wrong_kind_is_named(backend: Make, name: str, value: str) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=f"{name}.*{value}"):
        backend(OPTIONS={name: value})


@pytest.mark.parametrize("options", [None, "x", [("memory", "16M")]])
def test_options_that_are_no_dictionary(backend: Make, options: Any) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=r"OPTIONS.* dictionary"):
        backend(OPTIONS=options)


@pytest.mark.parametrize("option", ["memory", "create", "mode"])
def test_a_wrong_value_for_the_store_is_an_error_at_once(backend: Make, option: str) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=f"{option}='lots'"):
        backend(OPTIONS={option: "lots", "IGNORE_EXCEPTIONS": True})


def test_options_reach_the_store_and_the_cache(backend: Make, location: str) -> None:
    cache = backend(OPTIONS={"memory": "16M", "serializer": "pickle", "max_entries": 3})
    for number in range(10):
        cache.set(str(number), number)
    assert len(cache.get_many(map(str, range(10)))) == 3
    assert cache.store.url == f"{location}?memory={16 << 20}"
    with pytest.raises(celeriac.ConfigurationError, match="'yaml'"):
        backend(OPTIONS={"serializer": "yaml", "IGNORE_EXCEPTIONS": True}).get("key")


@pytest.mark.parametrize(
    ("params", "ttl"), [({}, 300), ({"TIMEOUT": "60"}, 60), ({"TIMEOUT": None}, None)]
)
def test_timeout_of_the_settings(backend: Make, params: dict[str, Any], ttl: int | None) -> None:
    cache = backend(**params)
    cache.set("key", "value")
    assert cache.ttl("key") == ttl


# ---- a store that isn't there


def test_nothing_is_connected_before_the_first_call(backend: Make, location: str) -> None:
    cache = backend(OPTIONS={"create": False})
    with pytest.raises(celeriac.StoreNotFound):
        cache.get("key")
    celeriac.connect(location)
    assert cache.get("key", "default") == "default", "the next call tries again"


def test_ignored_errors_are_misses_counted_and_logged_once(
    backend: Make, caplog: pytest.LogCaptureFixture
) -> None:
    cache = backend(OPTIONS={"create": False, "IGNORE_EXCEPTIONS": True})
    with caplog.at_level(logging.WARNING, "celeriac.django"):
        assert cache.get("key", "default") == "default"
        assert cache.set("key", 1) is False
        assert cache.add("key", 1) is False
        assert cache.touch("key") is False
        assert cache.delete("key") is False
        assert cache.has_key("key") is False
        assert cache.get_many(["key"]) == {}
        assert cache.set_many({"key": 1}) == ["key"]
        assert cache.delete_many(["key"]) == 0
        assert cache.get_or_set("key", "default") == "default"
        assert cache.ttl("key") == 0
        cache.clear()
        for call in (cache.incr, cache.decr, cache.incr_version, cache.decr_version):
            with pytest.raises(ValueError, match="'key' not found"):
                call("key")
    assert cache.ignored_exceptions == 16
    (record,) = caplog.records
    assert "StoreNotFound" in record.getMessage()


def test_another_handle_of_the_store_may_close(backend: Make, location: str) -> None:
    cache = backend()
    cache.set("key", "value")
    with celeriac.connect(location) as store:
        store.cache("another").set("key", "other")
    assert cache.get("key") == "value"


def _close(location: str, cache: CeleriacCache) -> None:
    cache.store.close()


def _destroy(location: str, cache: CeleriacCache) -> None:
    cache.store.destroy(force=True)


def _destroy_by_another_handle(location: str, cache: CeleriacCache) -> None:
    celeriac.connect(location).destroy(force=True)


def _destroy_in_another_process(location: str, cache: CeleriacCache) -> None:
    code = "import sys, celeriac; celeriac.connect(sys.argv[1]).destroy(force=True)"
    subprocess.run([sys.executable, "-c", code, location], check=True, timeout=60)


@pytest.mark.parametrize("ignore", [False, True])
@pytest.mark.parametrize(
    "end", [_close, _destroy, _destroy_by_another_handle, _destroy_in_another_process]
)
def test_a_store_that_was_closed_or_destroyed_is_opened_again(
    backend: Make, location: str, end: Callable[[str, CeleriacCache], None], ignore: bool
) -> None:
    cache, alias, prefixed = (
        backend(OPTIONS={"IGNORE_EXCEPTIONS": ignore}, KEY_PREFIX=prefix)
        for prefix in ("", "", "p")
    )
    calls: list[tuple[Callable[[CeleriacCache], object], tuple[object, ...]]] = [
        (lambda c: c.get("key", "default"), ("value", "default")),
        (lambda c: c.set("key", 1), (True,)),
        (lambda c: c.set("key", 1, nx=True), (True, False)),
        (lambda c: c.touch("key"), (True, False)),
        (lambda c: c.delete("key"), (True, False)),
        (lambda c: c.get_many(["key"]), ({"key": "value"}, {})),
        (lambda c: c.set_many({"key": 1}), ([],)),
        (lambda c: c.keys(), (["key"], [])),
        (lambda c: c.delete_pattern("*"), (1, 0)),
        (lambda c: c.get_or_set("other", lambda: "computed"), ("computed",)),
        (lambda c: asyncio.run(c.aget_or_set("other", lambda: "computed")), ("computed",)),
        (lambda c: c.invalidate("tag"), (None,)),
        (lambda c: c.clear_prefix(), (None,)),
        (lambda c: c.clear(), (None,)),
        (lambda c: c.lock("lock").acquire(blocking=False), (True, False)),
        (lambda c: c.ttl("key"), (300, 0)),
    ]
    for call, results in calls:
        for each in (cache, alias, prefixed):
            each.delete("other")
            each.set("key", "value")
        end(location, cache)
        for each in (alias, cache, prefixed):
            assert call(each) in results
            each.set("key", "value")
            assert each.get("key") == "value"
    assert cache.ignored_exceptions == 0


# ---- values


@pytest.mark.parametrize("ignore", [False, True])
def test_what_cannot_be_pickled_is_a_pickle_error(backend: Make, ignore: bool) -> None:
    cache = backend(OPTIONS={"IGNORE_EXCEPTIONS": ignore})
    cache.set("key", "old")
    unpicklable = {"value": threading.Lock()}
    for call in (cache.set, cache.add):
        with pytest.raises(pickle.PickleError):
            call("key" if call == cache.set else "other", unpicklable)
    with pytest.raises(pickle.PickleError):
        cache.set_many({"key": lambda: None})
    assert cache.get("key") == "old"


def test_a_value_that_is_too_large_removes_the_old_one(backend: Make) -> None:
    cache = backend(OPTIONS={"memory": "8M"})
    large = b"x" * (16 << 20)
    cache.set("key", "old")
    with pytest.raises(celeriac.ValueTooLarge):
        cache.set("key", large)
    assert "key" not in cache
    cache.set_many({"key": "old", "other": "old"})
    assert cache.set_many({"key": large, "other": "new"}) == ["key"]
    assert cache.get_many(["key", "other"]) == {"other": "new"}


def test_a_value_that_is_too_large_may_be_ignored(backend: Make) -> None:
    cache = backend(OPTIONS={"memory": "8M", "IGNORE_EXCEPTIONS": True})
    cache.set("key", "old")
    assert cache.set("key", b"x" * (16 << 20)) is False
    assert "key" not in cache
    assert cache.ignored_exceptions == 1


def test_add_leaves_what_is_there_also_with_a_value_that_is_too_large(backend: Make) -> None:
    cache = backend(OPTIONS={"memory": "8M", "IGNORE_EXCEPTIONS": True})
    cache.set("key", "old")
    assert cache.add("key", b"x" * (16 << 20)) is False
    assert cache.get("key") == "old"


def test_set_if_missing_and_set_if_there(backend: Make) -> None:
    cache = backend()
    assert cache.set("key", 1, xx=True) is False
    assert cache.set("key", 2, nx=True) is True
    assert cache.set("key", 3, nx=True) is False
    assert cache.get("key") == 2
    assert cache.set("key", 4, xx=True) is True
    assert cache.get("key") == 4
    with pytest.raises(ValueError, match="exclude"):
        cache.set("key", 5, nx=True, xx=True)


def test_negative_timeouts_expire_at_once(backend: Make) -> None:
    cache = backend()
    cache.set("key", "old")
    cache.set("key", "new", -5)
    assert "key" not in cache
    assert cache.add("key", "value", -5) is True
    assert "key" not in cache
    cache.set("key", "value")
    assert cache.touch("key", -5) is True
    assert "key" not in cache
    assert cache.get_backend_timeout(-5) == 0


def test_add_with_no_time_to_live_leaves_what_is_there(backend: Make) -> None:
    cache = backend()
    cache.set("key", "value")
    assert cache.add("key", "other", 0) is False
    assert cache.get("key") == "value"


def test_a_subclass_may_change_timeouts(location: str) -> None:
    class Shorter(CeleriacCache):
        def get_backend_timeout(self, timeout: Any = 300) -> float | None:
            return 7

    cache = Shorter(location, {})
    cache.set("key", "value", 100)
    assert cache.ttl("key") == 7


def test_delete_many_says_how_many(backend: Make) -> None:
    cache = backend()
    cache.set_many({"a": 1, "b": 2})
    assert cache.delete_many([]) is None
    assert cache.delete_many(iter(["a", "b", "c"])) == 2
    assert cache.delete_many(["a"]) == 0


# ---- counting


def test_incr_keeps_the_timeout(backend: Make) -> None:
    cache = backend()
    cache.set("short", 1, 10)
    cache.set("for-ever", 1, None)
    assert cache.incr("short") == 2
    assert cache.decr("short", 5) == -3
    assert cache.ttl("short") == 10
    assert cache.incr("for-ever") == 2
    assert cache.ttl("for-ever") is None


@pytest.mark.parametrize("start", [2**63 - 1, 2**64, -(2**63), 10**40])
def test_incr_goes_beyond_64_bits(backend: Make, start: int) -> None:
    cache = backend()
    cache.set("key", start)
    assert cache.incr("key") == start + 1
    assert cache.incr("key", 2**70) == start + 1 + 2**70
    assert cache.decr("key", 2**71) == start + 1 - 2**70
    assert cache.get("key") == start + 1 - 2**70


def test_incr_of_what_is_missing_or_no_number(backend: Make) -> None:
    cache = backend()
    with pytest.raises(ValueError, match="Key 'key' not found"):
        cache.incr("key")
    assert cache.incr("key", 3, ignore_key_check=True) == 3
    assert cache.decr("other", ignore_key_check=True) == -1
    assert cache.ttl("key") is None
    cache.set("text", "one")
    with pytest.raises(TypeError):
        cache.incr("text")
    assert cache.get("text") == "one"


def test_incr_version_keeps_the_timeout(backend: Make) -> None:
    cache = backend()
    cache.set("key", "value", 20)
    assert cache.incr_version("key") == 2
    assert cache.ttl("key", version=2) == 20
    assert cache.decr_version("key", version=2) == 1
    assert cache.ttl("key") == 20
    cache.set("key", "value", None)
    assert cache.incr_version("key") == 2
    assert cache.ttl("key", version=2) is None


def test_incr_version_by_nothing_deletes_nothing(backend: Make) -> None:
    cache = backend()
    cache.set("key", "value", 20)
    assert cache.incr_version("key", 0) == 1
    assert cache.get("key") == "value"
    with pytest.raises(ValueError, match="'none' not found"):
        cache.incr_version("none", 0)


# ---- how many entries


def test_without_max_entries_nothing_is_culled(backend: Make) -> None:
    cache = backend()
    cache.set_many({str(number): number for number in range(2_000)})
    assert len(cache.get_many(map(str, range(2_000)))) == 2_000


def test_a_full_store_evicts_and_does_not_refuse(backend: Make) -> None:
    cache = backend(OPTIONS={"memory": "8M"})
    megabyte = b"x" * (1 << 20)
    for number in range(50):
        cache.set(str(number), megabyte)
        assert cache.get(str(number)) == megabyte
    assert 0 < len(cache.get_many(map(str, range(50)))) < 9


def test_every_way_in_culls(backend: Make) -> None:
    cache = backend(OPTIONS={"MAX_ENTRIES": 9, "CULL_FREQUENCY": 3})
    for add in (
        lambda key: cache.set(key, 1),
        lambda key: cache.add(key, 1),
        lambda key: cache.set_many({key: 1}),
        lambda key: cache.set(key, 1, nx=True),
        lambda key: cache.get_or_set(key, 1),
    ):
        cache.clear()
        for number in range(10):
            add(str(number))
        assert len(cache.get_many(map(str, range(10)))) == 7
    cache.clear()
    cache.set_many({str(number): 1 for number in range(10)})
    assert len(cache.get_many(map(str, range(10)))) == 7


def test_overwriting_when_full_culls_nothing(backend: Make) -> None:
    cache = backend(OPTIONS={"MAX_ENTRIES": 9})
    for _ in range(3):
        for number in range(9):
            cache.set(str(number), number)
    assert len(cache.get_many(map(str, range(9)))) == 9


# ---- one LOCATION, one cache


def test_clear_empties_all_versions_and_prefixes_and_nothing_else(
    backend: Make, location: str
) -> None:
    caches = [backend(), backend(VERSION=2), backend(KEY_PREFIX="site")]
    for cache in caches:
        cache.set("key", "value")
    store = caches[0].store
    store.queue("jobs").put(b"job")
    store.cache("another").set("key", "value")
    locks = [caches[0].lock("key"), *(cache.lock("key", timeout=60) for cache in caches[1:])]
    assert all(lock.acquire(blocking=False) for lock in locks)
    assert store.url == celeriac.connect(location).url
    caches[1].clear()
    assert [cache.get("key") for cache in caches] == [None, None, None]
    caches[2].clear_prefix()
    assert all(lock.owned() for lock in locks)
    assert store.queue("jobs").counts().ready == 1
    assert store.cache("another").get("key") == "value"


def test_close_keeps_the_cache(backend: Make) -> None:
    cache = backend()
    cache.set("key", "value")
    cache.close(signal="request_finished")
    assert cache.get("key") == "value"
    assert not cache.store.closed


# ---- keys


@pytest.mark.parametrize("key", ["a key", "k" * 300, "tab\t", "\x7f"])
def test_the_warning_names_the_callers_file(backend: Make, key: str) -> None:
    cache = backend()
    for call in (
        lambda: cache.get(key),
        lambda: cache.set_many({key: 1}),
        lambda: key in cache,
        lambda: cache.get_or_set(key, 1),
    ):
        with pytest.warns(CacheKeyWarning) as caught:
            call()
        assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("key", ["k" * 247, "清", "nbsp\xa0", "\u200b"])
def test_other_keys_are_fine(backend: Make, key: str) -> None:
    cache = backend()
    cache.set(key, "value")
    assert cache.get(key) == "value"
    assert cache.get_many([key]) == {key: "value"}


def test_the_key_function_may_change_at_run_time(backend: Make) -> None:
    cache = backend()
    cache.set("key", "value")
    cache.key_func = lambda key, prefix, version: f"mine:{key}"
    assert cache.get("key") is None
    cache.set("key", "mine")
    assert cache.store.cache("celeriac.django.others").get("mine:key") == "mine"


def test_get_many_gives_back_the_callers_keys(backend: Make) -> None:
    cache = backend(KEY_PREFIX="site", VERSION=7)
    assert cache.set_many({"b": 1, "a": None}) == []
    assert cache.get_many(iter(["a", "missing", "b"])) == {"a": None, "b": 1}
    assert cache.get_many([]) == {}
    assert cache.set_many({}) == []
