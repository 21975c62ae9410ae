"""Caches: serializers and compressors, and what is read after a change of settings."""

from __future__ import annotations

import datetime
import decimal
import importlib.util
import sys
import uuid
from typing import Any

import pytest

import celeriac
from celeriac import Cache, Store

SERIALIZERS = ["native", "pickle", "json", "upside_down.Upside"]
COMPRESSORS = ["zlib", "lzma"]
SERIALIZERS += ["msgpack"] * bool(importlib.util.find_spec("msgpack"))
COMPRESSORS += ["lz4"] * bool(importlib.util.find_spec("lz4"))
COMPRESSORS += ["zstd"] * bool(importlib.util.find_spec("zstandard"))
PLAIN = {"id": 7, "name": "ü", "price": 1.5, "tags": ["a", None, True]}
TEXT = "some text " * 1000


@pytest.mark.parametrize("compressor", [None, *COMPRESSORS])
@pytest.mark.parametrize("serializer", SERIALIZERS)
def test_every_serializer_with_every_compressor(
    store: Store, serializer: str, compressor: str | None
) -> None:
    cache = store.cache(serializer=serializer, compressor=compressor)
    cache.set("text", TEXT)
    assert cache.get("text") == TEXT
    assert cache.get_many(["text"]) == {"text": TEXT}
    assert cache.add("text", "other") is False
    assert cache.add("more", "ü") is True
    assert cache.replace("more", "longer " * 500) is True
    assert cache.get("more") == "longer " * 500
    assert cache.get_or_set("set", lambda: TEXT[::-1]) == TEXT[::-1]
    assert cache.get("set") == TEXT[::-1]


@pytest.mark.parametrize("serializer", [s for s in SERIALIZERS if "upside" not in s])
def test_plain_data(store: Store, serializer: str) -> None:
    cache = store.cache(serializer=serializer)
    for value in (PLAIN, [PLAIN] * 100, None, True, 5, 2**63 - 1, -1, "", "ü", [], {}, 0.5):
        cache.set("k", value)
        got = cache.get("k", "missing")
        assert got == value
        assert type(got) is type(value)


UTC = datetime.timezone.utc
CET = datetime.timezone(datetime.timedelta(hours=1))


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), "2026-01-02T03:04:05.678Z"),
        (datetime.datetime(2026, 1, 2, 3, 4, tzinfo=CET), "2026-01-02T03:04:00+01:00"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.time(3, 4), "03:04:00"),
        (datetime.time(3, 4, 5, 678901), "03:04:05.678"),
        (datetime.timedelta(days=1, seconds=3723, microseconds=5), "P1DT01H02M03.000005S"),
        (datetime.timedelta(seconds=-1), "-P0DT00H00M01S"),
        (decimal.Decimal("1.50"), "1.50"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ((1, (2, "a")), [1, [2, "a"]]),
        ({1: (2,), None: 3}, {"1": [2], "null": 3}),
    ],
)
def test_json_writes_more_than_json_has(store: Store, value: Any, read: Any) -> None:
    cache = store.cache(serializer="json")
    cache.set("k", value)
    assert cache.get("k") == read
    cache.set("k", [{"in": value}], tags=["t"])
    assert cache.get("k") == [{"in": read}]


@pytest.mark.parametrize("value", [object(), {1}, b"bytes", datetime.time(1, tzinfo=UTC), 1j])
def test_json_does_not_take_the_rest(store: Store, value: Any) -> None:
    cache = store.cache(serializer="json")
    cache.set("k", "before")
    with pytest.raises(celeriac.SerializationError, match="serializer 'json' can't take a"):
        cache.set("k", value)
    assert cache.get("k") == "before"


@pytest.mark.parametrize("serializer", SERIALIZERS)
@pytest.mark.parametrize("tags", [(), ("t",)])
def test_ints_count_whatever_the_serializer(
    store: Store, serializer: str, tags: tuple[str, ...]
) -> None:
    cache = store.cache(serializer=serializer, compressor="zlib")
    cache.set("n", 5, tags=tags)
    assert cache.incr("n") == 6
    assert cache.decr("n", 10) == -4
    assert cache.incr("n", 2**64) == 2**64 - 4
    assert cache.get("n") == 2**64 - 4


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_only_what_is_large_and_gets_smaller_is_compressed(store: Store, compressor: str) -> None:
    import os

    def size(cache: Cache, value: bytes) -> int:
        cache.set("k", value)
        assert cache.get("k") == value
        found = cache._core.examine("k", True)
        assert found is not None
        return len(found[0])

    cache = store.cache(compressor=compressor)
    assert size(cache, bytes(1000)) >= 1000
    assert size(cache, bytes(100_000)) < 1000
    noise = os.urandom(5000)
    assert size(cache, noise) == 5000
    assert size(store.cache(compressor=compressor, compress_above=100), bytes(1000)) < 200


# ------------------------------------------------------------------ a change of settings


@pytest.mark.parametrize("new", [*SERIALIZERS[:3], "upside_down.Upside"])
@pytest.mark.parametrize("old", [*SERIALIZERS[:3], "upside_down.Upside"])
def test_entries_of_another_serializer_are_read_or_missed(store: Store, old: str, new: str) -> None:
    store.cache(serializer=old, compressor="zlib").set_many({"small": "s", "large": TEXT})
    cache = store.cache(serializer=new, compressor="lzma")
    for key, value in (("small", "s"), ("large", TEXT)):
        assert cache.get(key, "missed") in (value, "missed")
        if old == new or old == "json" or (old == "native" and new != "upside_down.Upside"):
            assert cache.get(key) == value
    if old != new and old == "upside_down.Upside":
        assert cache.get("large") is None  # data names no code to import


class Tells:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return leave_a_trace, ()


TRACES: list[str] = []


def leave_a_trace() -> None:
    TRACES.append("unpickled")


@pytest.mark.parametrize("tags", [[], ["t"]])
@pytest.mark.parametrize("by", ["json", "upside_down.Upside"])
@pytest.mark.parametrize("old", ["pickle", "native"])
def test_a_pickle_is_not_read_by_a_cache_that_was_told_json(
    store: Store, old: str, by: str, tags: list[str]
) -> None:
    TRACES.clear()
    store.cache(serializer=old).set("k", Tells(), tags=tags)
    store.cache(serializer=old).set("other", Tells(), tags=tags)
    cache = store.cache(serializer=by)
    assert cache.get("k", "missing") == "missing"
    assert cache.get_many(["k", "other"]) == {}
    assert "k" not in cache
    assert cache.keys() == []
    assert cache.touch("k", 5) is False
    with pytest.raises(KeyError):
        cache.ttl("k")
    assert cache.delete("other") is False
    assert cache.get_or_set("k", lambda: "new") == cache.get("k") == "new"
    cache.set("x", 5, 9)
    assert cache.touch("x", 50)
    assert cache.delete("x")
    assert TRACES == []
    store.cache(serializer=old).set("k", Tells(), tags=tags)
    assert store.cache().get("k", "missing") is None
    assert TRACES == ["unpickled"]


def test_a_package_that_is_gone_is_a_miss(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("msgpack", reason="msgpack isn't here: pip install '.[test]'")
    store.cache(serializer="msgpack").set("k", PLAIN)
    assert store.cache().get("k") == PLAIN
    monkeypatch.setitem(sys.modules, "msgpack", None)
    assert store.cache().get("k") is None


@pytest.mark.parametrize(
    ("compressor", "modules"),
    [("lz4", ["lz4.frame"]), ("zstd", ["zstandard", "compression.zstd"])],
)
def test_a_compressor_that_is_gone_is_a_miss(
    store: Store, monkeypatch: pytest.MonkeyPatch, compressor: str, modules: list[str]
) -> None:
    if compressor not in COMPRESSORS:
        pytest.skip(f"{compressor} isn't here: pip install '.[test]'")
    cache = store.cache(compressor=compressor)
    cache.set("k", TEXT)
    cache.set("small", "s")
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    now = store.cache(compressor="zlib")
    assert now.get("k", "missed") == "missed"
    assert now.get_many(["k", "small"]) == {"small": "s"}
    assert "k" not in now
    assert now.keys() == ["small"]
    assert now.touch("k", 50) is False
    with pytest.raises(KeyError):
        now.ttl("k")
    assert now.get_or_set("k", lambda: "anew") == "anew"
    assert now.get("k") == "anew"


@pytest.mark.parametrize("old", SERIALIZERS)
@pytest.mark.parametrize("new", SERIALIZERS)
def test_after_a_change_every_call_goes_on(store: Store, old: str, new: str) -> None:
    store.cache(serializer=old, compressor="zlib").set_many({"k": TEXT, "n": 5}, tags=["t"])
    cache = store.cache(serializer=new, compressor="lzma")
    assert cache.incr("n") == 6
    assert cache.get("k", "missed") in (TEXT, "missed")
    assert cache.get_or_set("k", lambda: TEXT) == TEXT
    assert cache.get("k") == TEXT
    assert cache.delete("k") is True


# ------------------------------------------------------------------ what is wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"serializer": "yaml"}, "unknown serializer 'yaml': the serializers are native, pickle"),
        ({"serializer": None}, "unknown serializer None"),
        ({"serializer": 5}, "unknown serializer 5"),
        ({"serializer": ".."}, "unknown serializer"),
        ({"serializer": "no.such.module"}, "can't be imported"),
        ({"serializer": "upside_down.absent"}, "can't be imported"),
        ({"serializer": "upside_down.nothing"}, r"has no dumps\(\)"),
        ({"serializer": "upside_down.Needs"}, "can't be made without arguments"),
        ({"serializer": "x." + "y" * 300}, "at most 255"),
        ({"compressor": "rar"}, "unknown compressor 'rar': the compressors are zlib, lzma, lz4"),
        ({"compressor": 5}, "unknown compressor 5"),
        ({"compressor": "zlib", "compress_above": -1}, "compress_above=-1"),
        ({"compressor": "zlib", "compress_above": "1K"}, "compress_above='1K'"),
    ],
)
def test_wrong_settings(store: Store, options: dict[str, Any], message: str) -> None:
    with pytest.raises(celeriac.ConfigurationError, match=message):
        store.cache(**options)


@pytest.mark.parametrize(
    ("options", "module", "package"),
    [
        ({"serializer": "msgpack"}, "msgpack", "msgpack"),
        ({"compressor": "lz4"}, "lz4.frame", "lz4"),
        ({"compressor": "zstd"}, "zstandard", "zstandard"),
    ],
)
def test_a_package_that_is_missing(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    module: str,
    package: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, "compression.zstd", None)
    with pytest.raises(celeriac.ConfigurationError, match=f"pip install {package}"):
        store.cache(**options)


@pytest.mark.parametrize("serializer", ["json", "upside_down.WritesText", "upside_down.Upside"])
def test_a_serializer_that_raises_on_writing(store: Store, serializer: str) -> None:
    cache = store.cache(serializer=serializer)
    cache.set("k", None)
    with pytest.raises(celeriac.SerializationError, match=f"serializer '{serializer}'"):
        cache.set("k", {"a": object()})
    assert cache.get("k", "missing") is None  # what was there stays
    with pytest.raises(celeriac.SerializationError):
        cache.get_or_set("other", object)
    assert "other" not in cache


def test_a_serializer_that_raises_on_reading(store: Store) -> None:
    cache = store.cache(serializer="upside_down.ReadsNothing")
    cache.set("k", "value")
    with pytest.raises(celeriac.SerializationError, match="not on reading") as caught:
        cache.get("k")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert store.cache().get("k") is None


class Breaks:
    def __reduce__(self) -> tuple[Any, ...]:
        return int, ("no number",)


def test_what_can_not_be_unpickled_is_named_in_one_line(store: Store) -> None:
    cache = store.cache()
    cache.set("k", Breaks())
    with pytest.raises(celeriac.SerializationError) as caught:
        cache.get("k")
    reason = "ValueError: invalid literal for int() with base 10: 'no number'"
    assert str(caught.value) == f"can't unpickle a value: {reason}"
