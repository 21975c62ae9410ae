"""Damaged entries of the form `Named`: a miss, some value or a SerializationError, and no more.

They are stored as they are, so every call of a cache meets them. Bytes that became a pickle are
left out: what pickle does with noise isn't ours, and only this user can write into the store.
"""

from __future__ import annotations

import importlib.util
import math
import random
import secrets
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac import Cache, SerializationError, Store, serializers
from celeriac.entries import Named, parse

ROUNDS = 250
PICKLED = b"\x08"
TEXT = "some text " * 30

# Their frames name the size of what is in them, and AddressSanitizer ends a process that asks for
# terabytes, where Python raises MemoryError.
SIZED = {"lz4", "zstd"}
SANITIZED = "libasan" in Path("/proc/self/maps").read_text()

KINDS: dict[str, tuple[dict[str, Any], Any]] = {
    "tags": ({}, {"id": 7, "names": ["a", "ü"]}),
    "int": ({}, 12345),
    "json": ({"serializer": "json"}, {"id": 7, "names": ["a", "ü"]}),
    "zlib": ({"compressor": "zlib", "compress_above": 10}, TEXT),
    "lzma of json": ({"serializer": "json", "compressor": "lzma", "compress_above": 10}, [TEXT]),
}
if importlib.util.find_spec("msgpack"):
    KINDS["msgpack"] = ({"serializer": "msgpack"}, {"id": 7, "names": ["a", "ü"]})
if importlib.util.find_spec("lz4"):
    KINDS["lz4"] = ({"compressor": "lz4", "compress_above": 10}, TEXT)
if importlib.util.find_spec("zstandard"):
    KINDS["zstd"] = ({"compressor": "zstd", "compress_above": 10}, TEXT)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    store = celeriac.connect(f"shm://t-{secrets.token_hex(6)}", memory="16M")
    yield store
    store.destroy(force=True)


def entry_of(cache: Cache, value: Any) -> Named:
    """What the core has for a value with tags and a grace."""
    cache.delete("k")
    cache.get_or_set("k", value, 60, tags=["t", "another tag"], stale=100)
    found = cache._core.examine("k", True)
    assert found is not None
    assert type(found[0]) is Named
    return found[0]


CALLS: list[tuple[Callable[[Cache], object], tuple[type[Exception], ...]]] = [
    (lambda c: c.get("k"), ()),
    (lambda c: c.get_many(["k", "other"]), ()),
    (lambda c: "k" in c, ()),
    (lambda c: c.ttl("k"), (KeyError,)),
    (lambda c: c.keys(), ()),
    (lambda c: c.tags_of("k"), ()),
    (lambda c: c.incr("k"), (ValueError, TypeError)),
    (lambda c: c.touch("k", 50), ()),
    (lambda c: c.get_or_set("k", "anew", stale=5, early=1.0), ()),
    (lambda c: c.add("k", "added"), ()),
    (lambda c: c.persist("k"), ()),
    (lambda c: c.delete("k"), ()),
]


def survive(cache: Cache, data: bytes, calls: list[Any]) -> None:
    """Each call ends as its documentation says."""
    for call, allowed in calls:
        cache._core.set("k", Named(data), 160.0)
        try:
            call(cache)
        except (SerializationError, *allowed):
            pass
    cache.set("k", "fine")
    assert cache.get("k") == "fine"


def is_pickle(data: bytes) -> bool:
    header = parse(Named(data))
    if header is None:
        return False
    return header.serializer == "pickle" or data[header.start : header.start + 1] == PICKLED


@pytest.mark.parametrize("kind", KINDS)
def test_truncated_anywhere(store: Store, kind: str) -> None:
    options, value = KINDS[kind]
    cache = store.cache(kind, **options)
    entry = entry_of(cache, value)
    assert cache.get("k") == value
    for size in range(len(entry)):
        survive(cache, entry[:size], CALLS[:1])
        cache._core.set("k", Named(entry[:size]), 160.0)
        try:
            assert cache.get("k", "missed") == "missed"
        except SerializationError:
            assert parse(Named(entry[:size])), "without a header there is nothing to read"


@pytest.mark.parametrize("kind", KINDS)
def test_flipped_and_moved(store: Store, kind: str) -> None:
    if SANITIZED and kind in SIZED:
        pytest.skip("a sanitizer ends the process where memory is refused")
    options, value = KINDS[kind]
    cache = store.cache(kind, **options)
    entry = entry_of(cache, value)
    chance = random.Random(kind)
    for _ in range(ROUNDS):
        data = bytearray(entry)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(min(len(data), chance.choice([40, len(data)])))
            how = chance.randrange(4)
            if how == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif how == 1:
                data[at] = chance.randrange(256)
            elif how == 2:
                data[at:at] = chance.randbytes(chance.randrange(5))
            elif len(data) > 9:
                del data[at : at + chance.randrange(1, 8)]
        if not is_pickle(bytes(data)):
            survive(cache, bytes(data), CALLS)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, -1.0, 1e300, -1e300])
@pytest.mark.parametrize("place", [5, 13], ids=["grace", "delta"])
def test_odd_numbers(store: Store, place: int, number: float) -> None:
    cache = store.cache("numbers")
    data = bytearray(entry_of(cache, [1]))
    data[place : place + 8] = struct.pack("<d", number)
    survive(cache, bytes(data), CALLS)


def test_names_of_code_are_not_followed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = store.cache("names", serializer="json")
    data = bytes(entry_of(cache, [1]))
    monkeypatch.setattr(serializers.importlib, "import_module", _never)
    for name in ("os.system", "builtins.eval", "json.tool", "jsonx", "JSON", "a.b", "."):
        named = bytearray(data.replace(b"json", name.encode(), 1))
        named[1] = len(name)
        survive(cache, bytes(named), CALLS)
        cache._core.set("k", Named(named), 160.0)
        assert cache.get("k", "missed") == "missed"


def _never(name: str) -> None:
    raise AssertionError(f"{name} was imported because data said so")
