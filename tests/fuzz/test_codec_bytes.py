"""Damaged bytes: the native codec raises SerializationError or gives some value, and no more."""

from __future__ import annotations

import datetime as dt
import decimal
import random
import struct
import uuid
import zoneinfo
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac import SerializationError, _core

NATIVE = 10
ROUNDS = 4000

SAMPLES: list[Any] = [
    [{"id": n, "name": f"name {n}", "price": n / 3, "stock": None, "on": True} for n in range(4)],
    {"nested": [[[{}, (), set(), frozenset({1, "a"})]]], "text": "ä" * 20, "bytes": b"x" * 40},
    [2**70, -(2**70), 1.5, -1, 300, 70_000, 2**40, "x" * 40, {"k" * 40: "ł" * 40, "€": 1}],
    [
        dt.datetime(2024, 2, 29, 12, 30, 15, 999_999, fold=1),
        dt.datetime(2024, 2, 29, tzinfo=dt.timezone.utc),
        dt.datetime(2024, 2, 29, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
        dt.datetime(2024, 2, 29, tzinfo=dt.timezone(dt.timedelta(hours=-3), "there")),
        dt.time(1, 2, 3, 4, tzinfo=dt.timezone(dt.timedelta(hours=1))),
        dt.date(1999, 12, 31),
        dt.timedelta(days=-5, microseconds=1),
        decimal.Decimal("12.50"),
        uuid.UUID(int=77),
    ],
    {(1, 2): [1], b"k": (2,), None: {"a": "a", "b": "a"}},
    {f"key{n}": f"key{n - 1}" for n in range(80)},
]


def encoded(value: Any) -> bytes:
    codec, data = _core.encode_value(value)
    assert codec == NATIVE
    return data


def survive(data: bytes) -> bool:
    """Whether the bytes gave a value."""
    try:
        _core.decode_value(NATIVE, data)
    except SerializationError:
        return False
    return True


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda v: str(v)[:25])
def test_truncated_anywhere(sample: Any) -> None:
    data = encoded(sample)
    for size in range(len(data)):
        assert not survive(data[:size])
    assert not survive(data + b"\0")


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda v: str(v)[:25])
def test_every_byte_replaced(sample: Any) -> None:
    data = bytearray(encoded(sample))
    for place, was in enumerate(data):
        for byte in {
            0,
            1,
            0x7F,
            0x80,
            0xC0,
            0xDF,
            0xED,
            0xF1,
            0xF5,
            0xFB,
            0xFF,
            was ^ 1,
            was ^ 128,
        }:
            data[place] = byte
            survive(bytes(data))
        data[place] = was


@pytest.mark.parametrize("seed", range(4))
def test_flipped_moved_and_mixed(seed: int) -> None:
    chance = random.Random(seed)
    pool = [encoded(sample) for sample in SAMPLES]
    for _ in range(ROUNDS):
        data = bytearray(chance.choice(pool))
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            kind = chance.randrange(4)
            if kind == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                data[at] = chance.randrange(256)
            elif kind == 2:
                other = chance.choice(pool)
                start = chance.randrange(len(other))
                data[at:at] = other[start : start + chance.randrange(20)]
            else:
                del data[at : at + chance.randrange(1, 8)]
            if not data:
                break
        survive(bytes(data))


@given(st.binary(max_size=200))
@settings(max_examples=1000, deadline=None)
def test_any_bytes(data: bytes) -> None:
    survive(data)
    survive(b"\x01" + data)


def size(n: int) -> bytes:
    """A varint."""
    parts = bytearray()
    while n >= 0x80:
        parts.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*parts, n])


HUGE = size(2**32 - 1)
MOMENT = struct.pack("<Q", (2024 << 47) | (1 << 43) | (1 << 38))
WRONG = {
    "empty": b"",
    "another version": b"\x02\xe0",
    "no item": b"\x01",
    "two items": b"\x01\xe0\xe0",
    **{f"tag {tag:x}": bytes([1, tag]) for tag in range(0xFC, 0x100)},
    **{
        f"huge {tag:x}": bytes([1, tag]) + HUGE + b"abc" for tag in range(0xE7, 0xF4) if tag != 0xE8
    },
    "huge decimal": b"\x01\xfa" + HUGE,
    "a size without an end": b"\x01\xee" + b"\xff" * 20,
    "far reference": b"\x01\xed" + size(4096),
    "near reference": b"\x01\x40",
    "list as key": b"\x01\xd1\xc0\xe0",
    "set of lists": b"\x01\xf2\x01\xc0",
    "not ASCII": b"\x01\x02a\x80",
    "not ASCII in the table": b"\x01\x22a\x80",
    "not UTF-8": b"\x01\xea\x02a\x80",
    "surrogate": b"\x01\xea\x03\xed\xa0\x80",
    "month 0": b"\x01\xf4" + struct.pack("<Q", 2024 << 47),
    "year 16383": b"\x01\xf4" + struct.pack("<Q", 0x3FFF << 47 | 1 << 43 | 1 << 38),
    "hour 31": b"\x01\xf7" + struct.pack("<Q", 31 << 33),
    "day 0": b"\x01\xf6" + struct.pack("<I", 2024 << 9 | 1 << 5),
    "too many days": b"\x01\xf9" + struct.pack("<iii", 2**31 - 1, 0, 0),
    "no zone": b"\x01\xf5" + MOMENT,
    "unknown zone": b"\x01\xf5" + MOMENT + b"\x07",
    "offset of a week": b"\x01\xf5" + MOMENT + b"\x01" + struct.pack("<iii", 7, 0, 0) + b"\xe0",
    "zone without a place": b"\x01\xf5" + MOMENT + b"\x02\x07Nowhere",
    "zone that is a path": b"\x01\xf5" + MOMENT + b"\x02\x0b../etc/motd",
    "zone that is a list": b"\x01\xf5" + MOMENT + b"\x02\xc0",
    "zone in a zone": b"\x01" + (b"\xf5" + MOMENT + b"\x02") * 100_000,
    "decimal that isn't one": b"\x01\xfa\x03abc",
    "nested too deep": b"\x01" + b"\xc1" * 101 + b"\xe0",
    "nested far too deep": b"\x01" + b"\xc1" * 1_000_000,
    "dicts nested far too deep": b"\x01" + b"\xd1\xe0" * 1_000_000,
    "tuples nested far too deep": b"\x01" + b"\xf1\x01" * 1_000_000,
    "sets nested far too deep": b"\x01" + b"\xf3\x01" * 1_000_000,
    "more strings than the table holds": b"\x01\xef" + size(4097) + b"\x21a" * 4097,
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_wrong(data: bytes) -> None:
    assert not survive(data)


@pytest.mark.parametrize("codec", [0, 11, 255])
def test_unknown_codec(codec: int) -> None:
    with pytest.raises(SerializationError, match=str(codec)):
        _core.decode_value(codec, b"\x01\xe0")


def test_as_deep_and_as_many_as_allowed() -> None:
    assert survive(b"\x01" + b"\xc1" * 99 + b"\xc0")
    assert survive(b"\x01\xef" + size(4096) + b"\x21a" * 4096)
