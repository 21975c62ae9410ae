"""Changes the fixed header of an arena from outside, with a checksum that is right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

HEADER = 104


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def patch(arena: Path, offset: int, change: Callable[[int], int], size: int = 8) -> None:
    """Changes a field of the header and makes the checksum right again."""
    data = bytearray(arena.read_bytes())
    assert crc32c(bytes(data[: HEADER - 4])) == int.from_bytes(data[HEADER - 4 : HEADER], "little")
    value = int.from_bytes(data[offset : offset + size], "little")
    data[offset : offset + size] = change(value).to_bytes(size, "little")
    data[HEADER - 4 : HEADER] = crc32c(bytes(data[: HEADER - 4])).to_bytes(4, "little")
    arena.write_bytes(data)
