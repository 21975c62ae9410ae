"""Looks at all blocks of an arena from outside: the walk by sizes that the heap promises.

Reads the file as any process could, and needs to know little of it: where the fixed header says
that blocks begin, and the two words at the head of a block (see `BlockHeader` in the layout).
Nobody may be writing meanwhile.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_CAPACITY_AT: Final = 104  # Header.capacity
_LOGS_AT: Final = 438272  # kLogs, and in each LogRecord the offset of its ghosts
_LOGS: Final = 129
_LOG_BYTES: Final = 144
_GHOSTS_AT: Final = 104
_BASE_SIZE_AT: Final = 88  # HeaderFixed.base_size
_SIZE_AT: Final = 112  # Header.size, behind HeaderFixed and Header.capacity
_NEST_INNER: Final = 2  # sides of blocks
_NEST: Final = (1, _NEST_INNER)
FREE, WRITING, LIVE, GARBAGE = range(4)
STATES: Final = ("free", "writing", "live", "garbage")


@dataclass
class HeapPicture:
    """What a walk over all blocks found; sizes are bytes with their heads."""

    ordinary_segment: int = 0  # size of the cache's segments in this arena
    whole: bool = False  # the walk ended exactly at the arena's end
    free_bytes: int = 0
    used_bytes: int = 0
    free_neighbours: int = 0  # free blocks right behind free blocks: not merged
    wrong_back_links: int = 0
    states: Counter[str] = field(default_factory=Counter)
    live: Counter[int] = field(default_factory=Counter)  # sizes of blocks in structures
    orphans: list[tuple[str, int]] = field(default_factory=list)  # writing or garbage

    @property
    def used_blocks(self) -> int:
        """Blocks that aren't free."""
        return sum(self.states.values()) - self.states["free"]


def look_at_heap(store_path: str | Path) -> HeapPicture:
    """The blocks of the store in that directory."""
    data = (Path(store_path) / "arena").read_bytes()
    (offset,) = struct.unpack_from("=Q", data, _BASE_SIZE_AT)
    (end,) = struct.unpack_from("=Q", data, _SIZE_AT)
    picture = HeapPicture()
    (capacity,) = struct.unpack_from("=Q", data, _CAPACITY_AT)
    picture.ordinary_segment = min(max((capacity // 1024 + 4095) // 4096 * 4096, 4096), 128 << 10)
    ghosts = {
        struct.unpack_from("=Q", data, _LOGS_AT + _LOG_BYTES * i + _GHOSTS_AT)[0]
        for i in range(_LOGS)
    }
    before = 0
    free_before = False
    side_before = 0
    while offset < end:
        word, sizes = struct.unpack_from("=QQ", data, offset)
        units, side, back = sizes & 0x3FFFFFFF, sizes >> 30 & 3, sizes >> 32
        if units < 2 or offset + units * 16 > end:
            return picture
        picture.wrong_back_links += back not in (0, before)
        state = word >> 60
        if state > GARBAGE:
            return picture
        picture.states[STATES[state]] += 1
        if state == FREE:
            picture.free_bytes += units * 16
            picture.free_neighbours += free_before and _together(side_before, side)
        else:
            picture.used_bytes += units * 16
            if offset in ghosts:
                assert state == LIVE
            elif state == LIVE:
                picture.live[units * 16] += 1
            else:
                picture.orphans.append((STATES[state], units * 16))
        free_before = state == FREE
        side_before = side
        before = units
        offset += units * 16
    picture.whole = offset == end
    return picture


def _together(left: int, right: int) -> bool:
    """Whether neighbours may merge: both in one nest, or both in none."""
    if right == _NEST_INNER:
        return left in _NEST
    return right not in _NEST and left not in _NEST


def _cost(payload: int) -> int:
    return (payload + 16 + 15) // 16 * 16


def aligned(payload: int) -> int:
    """Bytes of a block that holds an object aligned to 64."""
    return _cost(payload + 48)


TABLES: Final = {aligned(64 * ((8 + i % 8) << (i // 8) >> 1)) for i in range(96)}
SEGMENTS: Final = "segments of the cache"
CHUNK_OF_SEGMENTS: Final = aligned(64 * 256)
TIMERS: Final = {_cost(16 * 256 << log2) for log2 in range(12)}
CHUNK: Final = aligned(128 * 1024)


def kinds_of_blocks(picture: HeapPicture, queue: int, lane: int) -> Counter[str]:
    """How many live blocks of each kind of structure there are; others by their size."""
    kinds: Counter[str] = Counter()
    names = dict.fromkeys(TABLES, "tables of the index")
    names |= dict.fromkeys(TIMERS, "arrays of timers")
    names |= {CHUNK_OF_SEGMENTS: "chunks of segments", picture.ordinary_segment: SEGMENTS}
    names |= {queue: "queue records", lane: "lanes", CHUNK: "chunks of slots"}
    for size, n in picture.live.items():
        # A block may be 16 bytes larger than asked for: nothing smaller than 32 is cut off.
        name = names.get(size) or names.get(size - 16) or f"blocks of {size} bytes"
        kinds[name] += n
    return kinds


def leaks(picture: HeapPicture, queue: int, lane: int, lanes: int, queues: int = 1) -> list[str]:
    """What an empty store holds beyond its structures; sizes of a queue's record and of a lane as a
    fresh store shows them."""
    found = [f"{state} block of {size} bytes" for state, size in picture.orphans]
    allowed = {
        "queue records": queues,
        "lanes": lanes,
        "chunks of slots": 4,
        "chunks of segments": 4,
        SEGMENTS: 16,
        "arrays of timers": 1,
        "tables of the index": 64,
    }
    for kind, n in kinds_of_blocks(picture, queue, lane).items():
        if n > allowed.get(kind, 0):
            found.append(f"{n} {kind}, {allowed.get(kind, 0)} expected")
    return found


def largest_object(store_path: str | Path) -> tuple[int, int]:
    """Where the 64-byte-aligned object in the largest live block but chunks of slots begins and
    ends in the file."""
    data = (Path(store_path) / "arena").read_bytes()
    (offset,) = struct.unpack_from("=Q", data, _BASE_SIZE_AT)
    (end,) = struct.unpack_from("=Q", data, _SIZE_AT)
    found = (0, 0)
    while offset < end:
        word, sizes = struct.unpack_from("=QQ", data, offset)
        size = (sizes & 0x3FFFFFFF) * 16
        if word >> 60 == LIVE and size > found[1] and size != CHUNK:
            found = (offset, size)
        offset += size
    begin = (found[0] + 16 + 63) // 64 * 64
    return begin, begin + (found[1] - 64) // 64 * 64
