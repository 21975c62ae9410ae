"""What the fuzzer of the native codec found: read again in each run, in this build."""

from __future__ import annotations

import pickle
import random
import sys
from pathlib import Path

import pytest

from celeriac import SerializationError, _core

sys.path.insert(0, str(Path(__file__).parent / "support"))

import codec_corpus

NATIVE = 10
DAMAGED = object()
CORPUS = codec_corpus.load()


def read(data: bytes) -> object:
    try:
        return _core.decode_value(NATIVE, data)
    except SerializationError:
        return DAMAGED


def shown(value: object) -> list[str]:
    """All of a value but for the order in sets; NaN is equal to itself."""
    return sorted(repr(value))


def test_the_corpus_has_both_kinds() -> None:
    values = [read(data) is not DAMAGED for data in CORPUS]
    assert len(values) > 300
    assert sum(values) > 60
    assert values.count(False) > 60


def test_what_can_be_read_can_be_written_and_read_again() -> None:
    for data in CORPUS:
        value = read(data)
        if value is DAMAGED:
            continue
        codec, written = _core.encode_value(value)
        assert shown(_core.decode_value(codec, written)) == shown(value), data
        assert shown(pickle.loads(pickle.dumps(value))) == shown(value), data


@pytest.mark.parametrize("seed", range(2))
def test_two_of_them_spliced(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(5000):
        one, other = chance.choice(CORPUS), chance.choice(CORPUS)
        cut = chance.randrange(len(one) + 1)
        read(one[:cut] + other[chance.randrange(len(other) + 1) :])
        read(one[:cut])
