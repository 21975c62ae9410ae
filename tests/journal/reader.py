"""A reader of journals written from docs/journal-format.md alone: it shares nothing with celeriac.

python reader.py DIRECTORY|BACKUP        prints what is alive, and what is wrong, as JSON
"""

from __future__ import annotations

import json
import re
import struct
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

MAGIC = b"CELJRNL1"
HEADER = struct.Struct("<8sIIQQQQQ16sQII")
RECORD = struct.Struct("<IIQQQBB6s")
MESSAGE = struct.Struct("<QQQQQQQIIIIBBBB4s")
CHANGE = struct.Struct("<QQIIBBBB4s")
KEY = struct.Struct("<QQQ")
QUEUE, QUEUE_GONE, PUT, MOVED, GONE, VOID, SEAL, KEY_AGAIN = range(1, 9)
FIRST_RECORD, SECOND_COPY = 4096, 2048
NAME = re.compile(r"journal\.([0-9a-f]{16})")


def _table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


TABLE = _table()


def crc(data: bytes, seed: int = 0) -> int:
    value = seed ^ 0xFFFFFFFF
    for byte in data:
        value = TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


class Header(NamedTuple):
    salt: int
    number: int
    first_lsn: int
    oldest: int
    superseded: int
    uuid: bytes


class Record(NamedTuple):
    offset: int
    length: int
    lsn: int
    synced: int
    subject: int
    kind: int
    how: int
    payload: bytes


@dataclass
class Message:
    queue: int
    place: int
    state: int
    due: int
    expires: int
    deliveries: int
    priority: int
    end: int
    key: bytes
    reason: bytes
    headers: bytes
    body: bytes


@dataclass
class Journal:
    queues: dict[int, tuple[str, str]] = field(default_factory=dict)
    messages: dict[int, Message] = field(default_factory=dict)
    # (what, segment, offset, bytes, first missing lsn, how many)
    flaws: list[tuple[str, int, int, int, int, int]] = field(default_factory=list)
    records: int = 0
    next_lsn: int = 1
    synced: int = 0
    deleted: set[int] = field(default_factory=set)
    # by message: queue, until, id, text
    keys: dict[int, tuple[int, int, int, bytes]] = field(default_factory=dict)


def header(data: bytes) -> tuple[Header | None, int]:
    """The header, and how many of its copies are good."""
    good = []
    for at in (0, SECOND_COPY):
        copy = data[at : at + HEADER.size]
        if len(copy) == HEADER.size and copy.startswith(MAGIC):
            _, _, salt, number, first, _, oldest, superseded, uuid, _, _, sum_ = HEADER.unpack(copy)
            if crc(copy[:-4]) == sum_:
                good.append(Header(salt, number, first, oldest, superseded, uuid))
    return (good[0] if good else None), len(good)


def record(data: bytes, at: int, salt: int, low: int, high: int) -> Record | None:
    """The record at `at`, if there is one with an lsn from `low` to `high`."""
    if at + RECORD.size > len(data):
        return None
    sum_, length, lsn, synced, subject, kind, how, zero = RECORD.unpack_from(data, at)
    end = at + (length + 7) // 8 * 8
    if kind == 0 or length < RECORD.size or end > len(data) or any(zero) or not low <= lsn <= high:
        return None
    if crc(data[at + 4 : at + 40], crc(data[at + 40 : end]) ^ salt) != sum_:
        return None
    return Record(at, length, lsn, synced, subject, kind, how, data[at + 40 : at + length])


def records(journal: Journal, number: int, head: Header, data: bytes, lsn: int) -> Iterator[Record]:
    """The good records of a segment; adds its flaws. journal.next_lsn is the lsn behind each."""
    at = FIRST_RECORD
    end = len(data.rstrip(b"\0"))
    while at < len(data):
        found = record(data, at, head.salt, lsn, lsn)
        if not found:
            for there in range(at, end, 8):
                found = record(data, there, head.salt, lsn, lsn + ((there - at) // 40 + 1) * 65536)
                if found:
                    break
            if not found:
                if end > at:
                    journal.flaws.append(("tail", number, at, 0, lsn, 0))
                return
            missing = found.lsn - lsn
            journal.flaws.append(("hole", number, at, found.offset - at, lsn, missing))
        lsn = found.lsn + (found.subject if found.kind == VOID else 1)
        journal.next_lsn = max(journal.next_lsn, lsn)
        yield found
        if found.kind == SEAL:
            return
        at = found.offset + (found.length + 7) // 8 * 8


def apply(journal: Journal, r: Record) -> None:
    if r.kind == QUEUE:
        name_size, settings_size = struct.unpack_from("<II", r.payload)
        name, settings = r.payload[8 : 8 + name_size], r.payload[8 + name_size :]
        assert len(settings) == settings_size
        journal.queues[r.subject] = (name.decode(), settings.decode())
    elif r.kind == QUEUE_GONE:
        journal.queues.pop(r.subject, None)
        journal.deleted.add(r.subject)
    elif r.kind == PUT:
        queue, due, expires, _, place, _, *sizes, deliveries, priority, state, end, _, _ = (
            MESSAGE.unpack_from(r.payload)
        )
        body, headers, key, reason = sizes
        parts, at = [], MESSAGE.size
        for size in (key, reason, headers, body):
            parts.append(r.payload[at : at + size])
            at += size
        assert at == len(r.payload)
        journal.messages[r.subject] = Message(
            queue, place or r.lsn, state, due, expires, deliveries, priority, end, *parts
        )
        if key:
            journal.keys[r.subject] = (*KEY.unpack_from(parts[0]), parts[0][KEY.size :])
    elif r.kind == KEY_AGAIN:
        journal.keys[r.subject] = (*KEY.unpack_from(r.payload), r.payload[KEY.size :])
    elif r.kind == MOVED and r.subject in journal.messages:
        message = journal.messages[r.subject]
        message.due, queue, message.deliveries, size, message.state, message.end, _, behind, _ = (
            CHANGE.unpack_from(r.payload)
        )
        message.queue = queue or message.queue
        if behind:
            message.place, message.expires = r.lsn, 0
        message.reason = r.payload[CHANGE.size : CHANGE.size + size]
    elif r.kind == GONE:
        gone = [r.subject] if r.subject else [n for (n,) in struct.iter_unpack("<Q", r.payload)]
        for subject in gone:
            journal.messages.pop(subject, None)
            if subject in journal.keys and not journal.keys[subject][1]:
                del journal.keys[subject]


def read(path: Path) -> Journal:
    journal = Journal()
    if path.is_dir():
        found = {int(m[1], 16): p for p in path.iterdir() if (m := NAME.fullmatch(p.name))}
    else:
        found = {1: path}
    data = {number: file.read_bytes() for number, file in sorted(found.items())}
    heads = {number: header(bytes_) for number, bytes_ in data.items()}
    own = [h for number, (h, _) in heads.items() if h and h.number == number]
    oldest = max((h.oldest for h in own), default=1)
    uuids = Counter(h.uuid for h in own).most_common(1)
    over = {
        n for h, _ in heads.values() if h and h.superseded for n in range(h.superseded, h.number)
    }
    counting = [n for n in data if n >= oldest and n not in over]
    for number in range(oldest, max(counting, default=oldest)):
        if number not in data and number not in over:
            journal.flaws.append(("missing", number, 0, 0, 0, 0))
    expected = 0
    before = 0
    for number in counting:
        head, copies = heads[number]
        if head is None:
            journal.flaws.append(("header", number, 0, len(data[number]), 0, 0))
            continue
        if head.number != number or head.uuid != uuids[0][0]:
            journal.flaws.append(("foreign", number, 0, len(data[number]), 0, 0))
            continue
        if copies == 1:
            journal.flaws.append(("copy", number, 0, 0, 0, 0))
        if expected and head.first_lsn > expected and not head.superseded:
            journal.flaws.append(("hole", before, 0, 0, expected, head.first_lsn - expected))
        journal.next_lsn = max(journal.next_lsn, head.first_lsn)
        for r in records(journal, number, head, data[number], head.first_lsn):
            journal.records += 1
            journal.synced = max(journal.synced, r.synced)
            apply(journal, r)
        expected, before = journal.next_lsn, number
    journal.messages = {n: m for n, m in journal.messages.items() if m.queue not in journal.deleted}
    for message in journal.messages.values():
        journal.queues.setdefault(message.queue, (f"recovered-{message.queue}", ""))
    return journal


def summary(journal: Journal) -> dict[str, object]:
    """What celeriac's own reader is compared in."""
    return {
        "records": journal.records,
        "next_lsn": journal.next_lsn,
        "synced": journal.synced,
        "queues": {str(n): list(q) for n, q in sorted(journal.queues.items())},
        "messages": {
            str(n): [
                m.queue,
                m.state,
                m.deliveries,
                m.priority,
                m.place,
                m.reason.hex(),
                m.headers.hex(),
                crc(m.body),
            ]
            for n, m in sorted(journal.messages.items())
        },
        "keys": sorted(
            [number, queue, until, text.hex()]
            for number, (queue, until, _, text) in journal.keys.items()
            if queue in journal.queues
        ),
        "flaws": sorted(
            [what, segment, lsn, missing]
            for what, segment, _, _, lsn, missing in journal.flaws
            if what in ("hole", "tail")
        ),
    }


if __name__ == "__main__":
    print(json.dumps(summary(read(Path(sys.argv[1])))))
