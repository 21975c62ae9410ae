"""The native codec gives back what pickle does: value, types, order, identity of containers."""

from __future__ import annotations

import datetime as dt
import decimal
import gc
import math
import pickle
import uuid
import zoneinfo
from collections import OrderedDict, namedtuple
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import Cache, SerializationError, Store, _core

NATIVE, PICKLE = 10, 8
CONTAINERS = (list, tuple, dict, set, frozenset)
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def there_and_back(value: Any) -> tuple[int, Any]:
    codec, data = _core.encode_value(value)
    return codec, _core.decode_value(codec, data)


def same(ours: Any, theirs: Any, pairs: dict[int, int]) -> None:
    """Both are alike in all that a program can see of them."""
    assert type(ours) is type(theirs)
    if isinstance(ours, CONTAINERS) and len(ours):
        # the same container where theirs is the same one
        assert pairs.setdefault(id(theirs), id(ours)) == id(ours)
    if isinstance(ours, dict):
        assert len(ours) == len(theirs)
        for (our_key, our_value), (key, value) in zip(ours.items(), theirs.items(), strict=True):
            same(our_key, key, pairs)
            same(our_value, value, pairs)
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other, pairs)
    elif isinstance(ours, (set, frozenset)):
        assert sorted(map(repr, ours)) == sorted(map(repr, theirs))
    elif isinstance(ours, float):
        assert ours.hex() == theirs.hex()
    elif isinstance(ours, decimal.Decimal):
        assert ours.as_tuple() == theirs.as_tuple()
    elif isinstance(ours, (dt.datetime, dt.time)):
        assert ours.replace(tzinfo=None) == theirs.replace(tzinfo=None)
        assert (ours.fold, repr(ours.tzinfo)) == (theirs.fold, repr(theirs.tzinfo))
        assert type(ours.tzinfo) is type(theirs.tzinfo)
    else:
        assert ours == theirs
        assert repr(ours) == repr(theirs)


def check(value: Any) -> int:
    codec, ours = there_and_back(value)
    same(ours, pickle.loads(pickle.dumps(value)), {})
    return codec


# ------------------------------------------------------------------ any value

offsets = st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23))
zones = st.one_of(
    st.none(),
    st.just(dt.timezone.utc),
    st.just(BERLIN),
    st.builds(dt.timezone, offsets),
    st.builds(dt.timezone, offsets, st.text(max_size=40)),
)
moments = st.builds(
    lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold),
    st.datetimes(),
    zones,
    st.sampled_from([0, 1]),
)
times = st.builds(
    lambda time, zone, fold: time.replace(tzinfo=zone, fold=fold),
    st.times(),
    zones,
    st.sampled_from([0, 1]),
)
texts = st.one_of(
    st.text(max_size=70),
    st.text(st.characters(max_codepoint=127), max_size=70),
    st.sampled_from(["id", "name", "price", "ä", "日本", "x" * 64, "x" * 65, "n" * 31, "n" * 32]),
)
hashable_leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from(
        [
            s * (1 << bits) + d
            for bits in (6, 7, 15, 31, 63, 64, 80)
            for s in (1, -1)
            for d in (-1, 0, 1)
        ]
    ),
    st.floats(allow_nan=False),
    texts,
    st.binary(max_size=200),
    moments,
    st.dates(),
    times,
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
)
leaves = st.one_of(
    hashable_leaves,
    st.just(math.nan),
    st.just(decimal.Decimal("sNaN12")),
    st.just(decimal.Decimal("-NaN")),
)
keys = st.recursive(
    st.one_of(texts, texts, texts, hashable_leaves),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(tuple), st.frozensets(inner, max_size=3)
    ),
    max_leaves=4,
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=20),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys, inner, max_size=20),
        st.sets(keys, max_size=6),
        st.frozensets(keys, max_size=6),
        inner.map(lambda one: [one, one]),  # shared where it is a container
    )


@given(st.recursive(leaves, containers, max_leaves=40))
@settings(max_examples=600, deadline=None)
def test_any_value(value: Any) -> None:
    check(value)


@given(st.lists(st.dictionaries(texts, leaves, max_size=8), max_size=12))
@settings(max_examples=150, deadline=None)
def test_rows(rows: list[dict[str, Any]]) -> None:
    check([*rows, *(dict(row) for row in rows)])


# ------------------------------------------------------------------ what is native, what is not

PLAIN = [
    1.5,
    [],
    (),
    {},
    set(),
    frozenset(),
    [()] * 3,
    [1, -1, None, True, "a", b"b", 2.5, 2**100],
    {"a": {"b": [{"c": (1, {2}, frozenset({3}))}]}},
    {1: 2, (3, 4): 5, None: 6, b"k": 7, frozenset({8}): 9},
    dt.datetime.max,
    dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    dt.datetime(1, 1, 1, tzinfo=dt.timezone.utc),
    dt.timedelta.max,
    dt.timedelta.min,
    dt.time.max,
    dt.date.min,
    decimal.Decimal("-0E-10"),
    uuid.UUID(int=2**128 - 1),
    [{f"key{n}": n for n in range(count)} for count in (15, 16, 63, 64, 65)],
    {f"key{n}": n for n in range(6000)},
    [{f"key{n}": n for n in range(5000)}, {f"key{n}": n for n in range(5000)}],
]


@pytest.mark.parametrize("value", PLAIN, ids=lambda v: f"{type(v).__name__}-{str(v)[:20]}")
def test_plain_data_is_native(value: Any) -> None:
    assert check(value) == NATIVE


class Sub(dict[str, int]):
    pass


Pair = namedtuple("Pair", "a b")
shared: list[int] = [1]
OTHER = [
    [1, Sub(a=1)],
    [OrderedDict(a=1)],
    [Pair(1, 2)],
    [1 + 2j],
    [bytearray(b"x")],
    [range(3)],
    [shared, shared],
    {"a": shared, "b": {"c": shared}},
    [(shared,), (shared,)],
    ["\ud800"],
    {"\udfff": 1},
    [uuid.UUID(int=1, is_safe=uuid.SafeUUID.safe)],
    [dt.datetime(2024, 1, 1, tzinfo=zoneinfo.ZoneInfo.no_cache("Europe/Berlin"))],
]


@pytest.mark.parametrize("value", OTHER, ids=lambda v: str(v)[:30])
def test_all_else_is_pickled_as_a_whole(value: Any) -> None:
    assert check(value) == PICKLE


def test_recursion_is_pickled() -> None:
    rows: list[Any] = [{"a": 1}]
    rows.append(rows)
    codec, ours = there_and_back(rows)
    assert codec == PICKLE
    assert ours[1] is ours
    own: dict[str, Any] = {}
    own["me"] = own
    codec, ours = there_and_back(own)
    assert codec == PICKLE
    assert ours["me"] is ours


@pytest.mark.parametrize("long", ["x" * 1000, "ü" * 1000, b"x" * 1000])
def test_a_long_text_that_comes_again_is_stored_once(long: str | bytes) -> None:
    value = [long, {"again": long}, long]
    assert check(value) == PICKLE
    assert len(_core.encode_value(value)[1]) < 2 * len(long) + 1100
    _, ours = there_and_back(value)
    assert ours[0] is ours[1]["again"] is ours[2]
    assert check([long, "y" * 1000, b"y" * 1000, "x" * 10, "x" * 10]) == NATIVE
    assert check(["".join(["x"] * 1000) for _ in range(3)]) == NATIVE  # equal, not the same


def test_depth() -> None:
    value: list[Any] = []
    for _ in range(99):
        value = [value]
    assert check(value) == NATIVE
    assert check([value]) == PICKLE


def test_containers_held_elsewhere_are_not_shared() -> None:
    rows = [{"id": number} for number in range(100)]
    others = list(rows)  # another reference to each
    assert check(rows) == NATIVE
    assert others == rows


def test_ints_and_text_stay_as_they_were() -> None:
    assert _core.encode_value(5) == (4, (5).to_bytes(8, "little"))
    assert _core.encode_value("é") == (6, "é".encode())
    assert _core.encode_value(b"x") == (7, b"x")
    assert _core.encode_value(None) == (1, b"")
    assert _core.encode_value(-(2**64)) == (5, (-(2**64)).to_bytes(9, "little", signed=True))


def test_equal_keys_are_stored_once_and_built_once() -> None:
    rows = [{"".join(["a long name of ", "a field"]): n} for n in range(50)]  # fifty strings
    codec, data = _core.encode_value(rows)
    assert data.count(b"a long name") == 1
    assert len({id(key) for row in _core.decode_value(codec, data) for key in row}) == 1


# ------------------------------------------------------------------ trouble on the way


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache()


def test_an_error_in_the_middle_leaves_nothing_half_done(cache: Cache) -> None:
    rows = [{"id": number, "name": "before"} for number in range(50)]
    cache.set("k", rows)
    bad = [{"id": 1, "name": "after"}, {"id": 2, "name": Refuses()}]
    with pytest.raises(SerializationError, match="not me"):
        cache.set("k", bad)
    assert cache.get("k") == rows
    assert len(cache) == 1
    cache.set("k", bad[:1])
    assert cache.get("k") == bad[:1]


class Reenters:
    def __init__(self, cache: Any) -> None:
        self.cache = cache

    def __reduce__(self) -> Any:
        self.cache.set("inner", [{"id": 1, "name": "inner"}])
        return (str, (str(self.cache.get("inner")),))


def test_a_value_that_uses_the_codec_while_it_is_pickled(cache: Cache) -> None:
    cache.set("k", [{"id": 1, "name": Reenters(cache)}, {"id": 2, "name": "b"}])
    inner = [{"id": 1, "name": "inner"}]
    assert cache.get("k") == [{"id": 1, "name": str(inner)}, {"id": 2, "name": "b"}]
    assert cache.get("inner") == inner


@pytest.fixture
def eager_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize("kind", ["list", "dict", "keys", "set"])
def test_containers_that_change_under_the_writer(eager_collector: None, kind: str) -> None:
    # The collector may run where a time zone is taken apart, and it may run anything.
    zone = dt.timezone(dt.timedelta(hours=3), "somewhere")
    victims: list[Any] = []

    def spoil(phase: str, info: dict[str, int]) -> None:
        for victim in victims:
            victim.clear()

    gc.callbacks.append(spoil)
    try:
        for _ in range(20):
            moments = [dt.datetime(2024, 1, 1, n % 24, n % 60, n, tzinfo=zone) for n in range(60)]
            value: Any = {
                "list": list,
                "dict": lambda all: {str(one): [one] for one in all},
                "keys": lambda all: {one: [str(one)] for one in all},
                "set": set,
            }[kind](moments)
            victims.append(value)
            with suppress(SerializationError, RuntimeError):
                there_and_back([value, {"a": "b"}])
            victims.clear()
    finally:
        gc.callbacks.remove(spoil)
