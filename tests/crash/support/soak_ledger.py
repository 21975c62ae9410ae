"""The ledger of the kill soak: what each process says that it did, outside of the store.

Every process (an *incarnation* of a role) appends records of fixed size to a file of its own, each
by one `os.write`, so that a kill leaves whole records and the file survives the process. What a
process did between its last record and its death is unknown; `soak_verdict` allows exactly that.
"""

from __future__ import annotations

import os
import random
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

# Kinds of records
INTENT: Final = b"I"  # about to put (or count): may or may not happen
DONE: Final = b"A"  # put() or incr() returned
REFUSED: Final = b"R"  # QueueFull: nothing was put
GOT: Final = b"G"  # get() returned message `id`, delivery `n`, body whole
TORN: Final = b"T"  # get() returned a body that nobody wrote
ACKED: Final = b"K"  # ack() returned
REJECTED: Final = b"O"  # ack() or nack() raised NotOwner
GIVING_BACK: Final = b"N"  # about to nack
GIVEN_BACK: Final = b"n"  # nack() returned
LATE: Final = b"W"  # a wait that ended `n` ms after its deadline
LATE_STOPPED: Final = b"w"  # the same, of a process that was stopped meanwhile
BUSY: Final = b"L"  # LockTimeout: somebody who is stopped holds a mutex
STALE: Final = b"S"  # a cache read that is older than what was read before
BROKEN: Final = b"X"  # an exception that shouldn't be; its text is in the file beside

RECORD = struct.Struct("=cxxxIQd")
HEAD = struct.Struct("=QII")  # id, length of the payload, its crc32
_NOISE = random.Random(1).randbytes(1 << 17)


class Record(NamedTuple):
    """One line of the ledger; `time` is seconds of the monotonic clock."""

    kind: bytes
    n: int
    id: int
    time: float


class Ledger:
    """Appends the records of one incarnation."""

    def __init__(self, folder: Path, role: str, incarnation: int) -> None:
        self._path = folder / f"{incarnation:06d}.{role}"
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)

    def note(self, kind: bytes, number: int, n: int = 0) -> None:
        """Append a record; it is in the file when this returns."""
        os.write(self._fd, RECORD.pack(kind, n, number, time.monotonic()))

    def broken(self, text: str) -> None:
        """Append a BROKEN record, and the text to the file beside."""
        with open(f"{self._path}.error", "a") as file:
            file.write(text + "\n")
        self.note(BROKEN, 0)


def read(path: Path) -> Iterator[Record]:
    """The whole records of a file."""
    data = path.read_bytes()
    whole = len(data) - len(data) % RECORD.size
    return (Record(*fields) for fields in RECORD.iter_unpack(data[:whole]))


def make_body(number: int, size: int, draw: random.Random) -> bytes:
    """A message or value that says what it is: head, then `size` bytes of noise."""
    start = draw.randrange(len(_NOISE) - size)
    payload = _NOISE[start : start + size]
    return HEAD.pack(number, size, zlib.crc32(payload)) + payload


def number_of(body: bytes) -> int | None:
    """The number inside a body, None when the body isn't exactly what make_body() made."""
    if len(body) < HEAD.size:
        return None
    number, size, crc = HEAD.unpack_from(body)
    payload = memoryview(body)[HEAD.size :]
    if len(payload) != size or zlib.crc32(payload) != crc:
        return None
    return int(number)


def draw_size(draw: random.Random) -> int:
    """1 byte to 64 KB; each power of two is as likely as the next."""
    return min(65536, int(2.0 ** draw.uniform(0, 16.01)))
