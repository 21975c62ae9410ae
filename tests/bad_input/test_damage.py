"""Files whose bytes were changed while nobody looked: an error or a loss, never a crash (D11)."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import celeriac

SEEDS = int(os.environ.get("CELERIAC_DAMAGE_SEEDS", "200"))
FIRST = int(os.environ.get("CELERIAC_DAMAGE_FIRST_SEED", "0"))


def test_random_damage(root: Path) -> None:
    program = Path(__file__).parent / "support" / "damage.py"
    done = subprocess.run(
        [sys.executable, str(program), str(root), str(SEEDS), str(FIRST)],
        capture_output=True,
        text=True,
        timeout=60 + SEEDS * 5,
        check=False,
    )
    assert done.stdout == "", done.stdout + done.stderr[-5000:]
    assert done.returncode == 0, done.stderr[-5000:]


def last_block(data: bytes) -> int:
    """Where the heap's last block begins: the walk by sizes, from where the header says."""
    (at,) = struct.unpack_from("=Q", data, 88)  # HeaderFixed.base_size
    while True:
        units = struct.unpack_from("=Q", data, at + 8)[0] & 0x3FFFFFFF
        if at + units * 16 >= len(data):
            return int(at)
        at += units * 16


@pytest.mark.parametrize("bit", [2, 9, 13, 18, 20, 27])
def test_the_last_block_of_a_wrong_size(ours: Path, bit: int) -> None:
    """Nobody recovers it first: who allocates meets it as it is."""
    url = "shm://app?memory=16M"
    with celeriac.connect(url) as store:
        store.queue("q").put(b"m")  # the last block is free, and large
    arena = ours / "app" / "arena"
    data = bytearray(arena.read_bytes())
    at = last_block(data)
    data[at + 8 + bit // 8] ^= 1 << bit % 8
    arena.write_bytes(data)
    code = """
import sys, celeriac
store = celeriac.connect(sys.argv[1])
for size in (int(sys.argv[2]), 500_000, 100, 3_000_000):
    try:
        store.queue("q").put(b"x" * size)
        store.cache("c").set(str(size), b"y" * size)
    except celeriac.CeleriacError:
        pass
"""
    room = len(data) - at - 48  # so that what is left of it begins 16 bytes before the end
    command = [sys.executable, "-c", code, url, str(max(room, 1))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def spoil(arena: Path, text: bytes) -> None:
    """Changes one letter of a text that stands in the file once, as a stray write would."""
    data = arena.read_bytes()
    assert data.count(text) == 1
    with arena.open("r+b") as file:
        file.seek(data.index(text))
        file.write(text[:1].swapcase())


@pytest.mark.parametrize("part", [b"the body", b"the header"])
def test_a_damaged_message_is_listed_as_dead(ours: Path, part: bytes) -> None:
    with celeriac.connect("shm://app?memory=8M") as store:
        queue = store.queue("q")
        number = queue.put(b"the body", priority=3, headers={"h": "the header"})
        later = queue.put(b"later on", delay=1000)
        spoil(ours / "app" / "arena", part)
        spoil(ours / "app" / "arena", b"later on")
        for look, state in ((queue.ready, number), (queue.delayed, later)):
            (seen,) = look()
            assert seen.id == state
            assert isinstance(seen.body, celeriac.StoreCorrupt)
        assert queue.get(timeout=0) is None
        assert queue.counts() == (0, 1, 0, 1, 0)
        (dead,) = queue.dead()
        assert (dead.id, dead.priority, dead.headers) == (number, 3, {})
        assert isinstance(dead.body, celeriac.StoreCorrupt)
        assert f"message {number} of queue 'q' is damaged" in str(dead.body)


def test_a_damaged_entry_is_a_miss_that_is_counted(ours: Path) -> None:
    with celeriac.connect("shm://app?memory=8M") as store:
        cache = store.cache()
        cache.set_many({f"key {i}": i for i in range(50)}, None)
        cache.set("a key of its own", [1, 2, 3], None)
        arena = ours / "app" / "arena"
        data = arena.read_bytes()
        assert data.count(b"a key of its own") == 1
        with arena.open("r+b") as file:
            file.seek(data.index(b"a key of its own") - 4)
            file.write(b"\xff\xff\xfe\xff")  # sizes of key and value: src/store/entry.hpp
        assert store.stats()["corrupt"] == 0
        assert cache.get("a key of its own", "missed") == "missed"
        assert "a key of its own" not in cache
        assert store.stats()["corrupt"] == 1
        assert cache.get_many(f"key {i}" for i in range(50)) == {f"key {i}": i for i in range(50)}
        assert len(cache) == len(cache.keys()) == 50
        assert cache.get_or_set("a key of its own", "anew") == "anew"
        assert store.stats()["corrupt"] == 1
    done = subprocess.run(
        [sys.executable, "-m", "celeriac", "doctor", "shm://app"], capture_output=True, text=True
    )
    assert "1 corrupt part was found and dropped" in done.stdout
    assert done.returncode == 1
