"""Caches: every type and size of value comes back as it was."""

from __future__ import annotations

import datetime
import decimal
import enum
import math
import pickle
import sys
import uuid
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac import Cache, Store


class Color(enum.IntEnum):
    RED = 1


class Text(str):
    __slots__ = ()


class Point:
    def __init__(self, x: int, y: int) -> None:
        self.x, self.y = x, y

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and (self.x, self.y) == (other.x, other.y)

    __hash__ = None  # type: ignore[assignment]


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


class NeverComesBack:
    def __reduce__(self) -> Any:
        return (_fail, ())


def _fail() -> None:
    raise RuntimeError("not on reading")


class Interrupts:
    def __reduce__(self) -> Any:
        raise KeyboardInterrupt


@pytest.fixture(params=["native", "pickle"])
def cache(request: pytest.FixtureRequest, store: Store) -> Cache:
    return store.cache(serializer=request.param)


INTS = [0, 1, -1, 255, 256, -256, 2**31, 2**32, 2**62]
INTS += [2**63 - 1, -(2**63), 2**63, -(2**63) - 1, 2**64 - 1, 2**64, -(2**64), 2**127, 2**128]
INTS += [2**1000, -(2**1000), 255 << 64, -(255 << 64), 1 << 80_000]


@pytest.mark.parametrize("value", INTS, ids=lambda v: f"{v.bit_length()}bits{'-' * (v < 0)}")
def test_int(cache: Cache, value: int) -> None:
    cache.set("k", value)
    assert cache.get("k") == value
    assert type(cache.get("k")) is int


@pytest.mark.parametrize("value", [None, True, False])
def test_constants(cache: Cache, value: object) -> None:
    cache.set("k", value)
    assert cache.get("k", "missing") is value


TEXTS = ["", "a", "\0", "a\0b", "zażółć", "\U0010ffff", "é" * 700]
TEXTS += ["\ud800", "a\udfffb", "\ud83d\ude00"]  # alone, these have no UTF-8


@pytest.mark.parametrize("value", TEXTS, ids=ascii)
def test_text(cache: Cache, value: str) -> None:
    cache.set("k", value)
    assert cache.get("k") == value
    assert type(cache.get("k")) is str


@pytest.mark.parametrize("value", [b"", b"\0", bytes(range(256)), b"\x80\x05N.", b"12345678"])
def test_bytes(cache: Cache, value: bytes) -> None:
    cache.set("k", value)
    assert cache.get("k") == value
    assert type(cache.get("k")) is bytes


OBJECTS = [
    1.5,
    -0.0,
    math.inf,
    1 + 2j,
    [],
    {},
    (),
    {"a": [1, (2, {3}), None], "b": {"c": b"d"}},
    bytearray(b"x"),
    frozenset({1}),
    range(5),
    Color.RED,
    Text("text"),
    Point(1, 2),
    decimal.Decimal("1.10"),
    datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc),
    uuid.UUID(int=5),
    int,
    len,
    ValueError("x").args,
]


@pytest.mark.parametrize("value", OBJECTS, ids=lambda v: type(v).__name__)
def test_objects(cache: Cache, value: object) -> None:
    cache.set("k", value)
    assert cache.get("k") == value
    assert type(cache.get("k")) is type(value)


def test_nan(cache: Cache) -> None:
    cache.set("k", math.nan)
    assert math.isnan(cache.get("k"))


def test_what_comes_back_is_a_copy(cache: Cache) -> None:
    value = {"list": [1]}
    cache.set("k", value)
    value["list"].append(2)
    first = cache.get("k")
    first["list"].append(3)
    assert cache.get("k") == {"list": [1]}


def test_shared_parts_stay_shared(cache: Cache) -> None:
    part: list[Any] = []
    part.append(part)
    cache.set("k", [part, part])
    a, b = cache.get("k")
    assert a is b
    assert a[0] is a


SIZES = sorted(
    {n + d for n in [1 << p for p in range(0, 25, 2)] + [1024, 65536] for d in (-1, 0, 1)}
    - {(1 << 24) + 1}
)


def test_sizes_up_to_16_mib(store: Store) -> None:
    cache = store.cache()
    pattern = bytes(range(251)) * ((1 << 24) // 251 + 1)
    for size in SIZES:
        for value in (pattern[:size], "é" * (size // 2) + "x" * (size % 2)):
            cache.set("k", value)
            assert cache.get("k") == value
        cache.set("k", [pattern[:size]])
        assert cache.get("k") == [pattern[:size]]
    assert len(cache) == 1


def test_the_largest_value_fits_and_a_byte_more_does_not(fresh: Callable[[str], Store]) -> None:
    low, high = 0, 8 << 20
    while high - low > 1:
        size = (low + high) // 2
        cache = fresh("8M").cache()
        try:
            cache.set("k", b"x" * size)
        except celeriac.ValueTooLarge:
            high = size
        else:
            low = size
            assert cache.get("k") == b"x" * size
    assert low > 4 << 20
    cache = fresh("8M").cache()
    cache.set("k", "before")
    with pytest.raises(celeriac.ValueTooLarge, match=rf"{high} bytes.*memory={8 << 20}\b"):
        cache.set("k", b"x" * high)
    assert "k" not in cache


def test_too_large_removes_the_old_value_and_changes_nothing_else(
    memory: Callable[[str], Store],
) -> None:
    cache = memory("8M").cache()
    cache.set_many({"k": 1, "other": 2})
    big = b"x" * (9 << 20)
    for call in (cache.add, cache.replace):
        with pytest.raises(celeriac.ValueTooLarge):
            call("k", big)
    with pytest.raises(celeriac.ValueTooLarge):
        cache.add("new", big)
    assert cache.get_many(["k", "other", "new"]) == {"k": 1, "other": 2}
    with pytest.raises(celeriac.ValueTooLarge):
        cache.set("k", big)
    assert cache.get_many(["k", "other", "new"]) == {"other": 2}
    assert cache.stats().evictions == 0


# ------------------------------------------------------------------ what can't be serialized


@pytest.mark.parametrize("value", [lambda: None, Refuses(), sys._getframe(), [Refuses()]])
def test_what_can_not_be_pickled(cache: Cache, value: object) -> None:
    cache.set("k", "before")
    for call in (cache.set, cache.add, cache.replace):
        with pytest.raises(celeriac.SerializationError, match=type(value).__name__) as caught:
            call("k", value)
        assert isinstance(caught.value, pickle.PickleError)
        assert caught.value.__cause__ is not None
    assert cache.get("k") == "before"
    assert len(cache) == 1


def test_what_can_not_be_unpickled(cache: Cache) -> None:
    cache.set("k", NeverComesBack())
    with pytest.raises(celeriac.SerializationError, match="not on reading"):
        cache.get("k")
    with pytest.raises(celeriac.SerializationError):
        cache.get_many(["k"])
    assert "k" in cache
    assert cache.delete("k") is True


def test_an_interrupt_stays_one(cache: Cache) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache.set("k", Interrupts())
    assert len(cache) == 0


def test_a_value_that_uses_the_cache_while_it_is_pickled(cache: Cache) -> None:
    global _reentrant
    _reentrant = cache
    cache.set("k", Reenters())
    assert cache.get("k") == "from outside"
    assert cache.get("inner") == "from inside"


_reentrant: Cache


class Reenters:
    def __reduce__(self) -> Any:
        _reentrant.set("inner", "from inside")
        return (str, ("from outside",))


def test_both_serializers_read_each_other(store: Store) -> None:
    native, pickled = store.cache(), store.cache(serializer="pickle")
    native.set_many({"a": 5, "b": "text"})
    pickled.set_many({"c": 5, "d": "text"})
    for cache in (native, pickled):
        assert cache.get_many("abcd") == {"a": 5, "b": "text", "c": 5, "d": "text"}


@pytest.mark.parametrize("value", [5, 2**70])
def test_counters_in_both_serializers(cache: Cache, value: int) -> None:
    cache.set("n", value, 100)
    assert cache.incr("n", 3) == value + 3
    assert cache.decr("n", 2**80) == value + 3 - 2**80
    assert 99 < (cache.ttl("n") or 0) <= 100


def test_unknown_serializer(store: Store) -> None:
    with pytest.raises(celeriac.ConfigurationError, match="native, pickle"):
        store.cache(serializer="yaml")
