"""What is stored of a chord: one entry that is changed as a whole.

A head of fixed size, the claim, the ids of parts that came later, those of the parts of an unmade
header, and 16 bytes for each part that was returned: a digest of its task id and its place, so that
one that comes twice counts once. A header with a thousand parts has 16 KB in the end.
"""

from __future__ import annotations

import struct
from hashlib import blake2b

__all__ = ["CLAIMED", "DONE", "OPEN", "Chord"]

OPEN, CLAIMED, DONE = b"O", b"C", b"D"
UNKNOWN = -1
DIGEST = 16
LAST = 1 << 62

_head = struct.Struct("<c??qHII")


class Chord:
    """The chord entry as it was at one version."""

    __slots__ = ("added", "claim", "hidden", "ids", "parts", "size", "state", "unmade")
    state: bytes
    hidden: bool
    unmade: bool
    size: int
    added: list[str]
    claim: str
    ids: list[str]
    parts: bytes

    def __init__(self, value: object) -> None:
        self.reset()
        if isinstance(value, bytes) and len(value) >= _head.size:
            head = _head.unpack_from(value)
            self.state, self.hidden, self.unmade, self.size, claim, added, ids = head
            ends = _head.size
            texts = []
            for length in (claim, added, ids):
                texts.append(value[ends : ends + length].decode())
                ends += length
            self.claim, self.added, self.ids = texts[0], texts[1].split(), texts[2].split()
            self.parts = value[ends:]

    def reset(self) -> None:
        """As a chord begins."""
        self.state = OPEN
        self.hidden = False  # some part's result is there for the callback only
        self.unmade = False  # the header is made as it is sent: its ids come with the parts
        self.size = UNKNOWN
        self.added = []  # ids of parts that the chord did not begin with
        self.ids = []
        self.claim = ""
        self.parts = b""

    def value(self) -> bytes:
        """What is stored."""
        texts = (self.claim.encode(), " ".join(self.added).encode(), " ".join(self.ids).encode())
        head = _head.pack(self.state, self.hidden, self.unmade, self.size, *map(len, texts))
        return b"".join((head, *texts, self.parts))

    def add(self, task_id: str, index: int | None) -> None:
        """Add a part, unless it is there."""
        part = blake2b(f"{task_id}:{index}".encode(), digest_size=DIGEST).digest()
        place = self.parts.find(part)
        while place >= 0 and place % DIGEST:
            place = self.parts.find(part, place + 1)
        if place >= 0:
            return
        self.parts += part
        if self.unmade and task_id not in self.added:
            self.ids.append(f"{LAST if index is None else index}:{task_id}")

    def made(self) -> list[str]:
        """The ids of a header that was made as it was sent, in its order."""
        pairs = [each.split(":", 1) for each in self.ids]
        return [task_id for _, task_id in sorted(pairs, key=lambda pair: int(pair[0]))]

    def finish(self) -> bool:
        """The callback was sent."""
        self.reset()
        self.state = DONE
        return True

    def complete(self) -> bool:
        """Whether all parts are there. A chord whose size isn't known yet is never complete."""
        return self.size >= 0 and len(self.parts) // DIGEST >= self.size + len(self.added)
