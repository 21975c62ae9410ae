"""Queues of file:// stores: what they hold outlives processes, the arena, and the boot."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import reader

import celeriac
from celeriac.errors import ConfigurationError, NotEnoughMemory, StoreCorrupt, StoreNotFound

FINGERPRINT, BOOT_ID = 16, 40  # where an arena's header has them


def lose_arena(path: Path) -> None:
    (path / "arena").unlink()


def reboot(path: Path) -> None:
    """As if the arena had been made before the host's last boot."""
    change_header(path, BOOT_ID)


def change_header(path: Path, offset: int) -> None:
    """Changes a byte of the arena's header, with a checksum that is right."""
    with (path / "arena").open("r+b") as file:
        head = bytearray(file.read(104))
        head[offset] ^= 0xFF
        head[100:104] = struct.pack("<I", reader.crc(bytes(head[:100])))
        file.seek(0)
        file.write(head)


def bodies(queue: celeriac.Queue) -> list[bytes]:
    found = []
    while (message := queue.get(timeout=0)) is not None:
        found.append(message.body)
        message.ack()
    return found


@pytest.mark.parametrize("durability", ["process", "everysec", "always"])
def test_messages_outlive_kill_and_lost_arena(
    url: str, path: Path, killed: Callable[..., str], durability: str
) -> None:
    code = (
        "q = store.queue('q', max_deliveries=7)\n"
        "for i in range(20): q.put(f'body {i}', priority=i % 2, headers={'h': i})\n"
        "for i in range(3): q.get(timeout=0).ack()\n"
        "held = q.get(timeout=0)\n"
    )
    killed(code, durability)
    lose_arena(path)
    with celeriac.connect(url) as store:
        queue = store.queue("q")
        assert store.queues() == ["q"]
        assert queue.counts().ready == 17, "what was reserved is ready again"
        left = [f"body {i}".encode() for i in (*range(7, 20, 2), *range(0, 20, 2))]
        assert bodies(queue) == left
    lose_arena(path)
    with celeriac.connect(url) as store:
        assert store.queue("q").counts().ready == 0, "what was acknowledged is done"


def test_ids_deliveries_and_due_times_are_kept(url: str, path: Path) -> None:
    with celeriac.connect(url) as store:
        queue = store.queue("q", max_deliveries=2)
        first, second = queue.put("a"), queue.put("b")
        later = queue.put("c", delay=3600)
        message = queue.get(timeout=0)
        assert message is not None
        assert message.id == first
        message.nack()
        for _ in range(2):  # dead at the second delivery
            message = queue.get(timeout=0)
            assert message is not None
            if message.id == first:
                message.nack()
            else:
                message.nack(delay=1800)
    lose_arena(path)
    with celeriac.connect(url) as store:
        queue = store.queue("q")
        counts = queue.counts()
        assert (counts.ready, counts.delayed, counts.dead) == (0, 2, 1)
        assert [m.id for m in queue.dead()] == [first]
        delayed = queue.delayed()
        assert [m.id for m in delayed] == [second, later]
        assert queue.put("d") not in (first, second, later)


def test_due_messages_come_after_the_arena_was_lost(url: str, path: Path) -> None:
    with celeriac.connect(url) as store:
        store.queue("q").put("soon", delay=0.4)
    lose_arena(path)
    with celeriac.connect(url) as store:
        queue = store.queue("q")
        begun = time.monotonic()
        message = queue.get(timeout=10)
        assert message is not None
        assert message.body == b"soon"
        assert time.monotonic() - begun < 5


def test_purged_and_deleted_stay_so(url: str, path: Path) -> None:
    with celeriac.connect(url) as store:
        for name in ("kept", "purged", "deleted"):
            store.queue(name).put("x")
        store.queue("purged").purge()
        store.queue("deleted").delete()
        store.queue("bound", owner_bound=True).put("x")
    lose_arena(path)
    with celeriac.connect(url) as store:
        assert sorted(store.queues()) == ["kept", "purged"]
        assert store.queue("purged").counts().ready == 0
        assert store.queue("kept").counts().ready == 1


def test_arena_of_an_earlier_boot(url: str, path: Path) -> None:
    with celeriac.connect(url) as store:
        store.queue("q").put("before")
        store.cache("c").set("k", 1)
    reboot(path)
    with celeriac.connect(url) as store:
        assert store.cache("c").get("k") is None, "caches begin anew"
        assert bodies(store.queue("q")) == [b"before"]


def test_arena_of_another_layout(url: str, path: Path) -> None:
    with celeriac.connect(url) as store:
        store.queue("q").put("before")
        change_header(path, FINGERPRINT)
        code = "import celeriac, sys; celeriac.connect(sys.argv[1])"
        other = subprocess.run(
            [sys.executable, "-c", code, url], capture_output=True, text=True, check=False
        )
        assert "VersionMismatch" in other.stderr, "this process still uses it"
    with celeriac.connect(url) as store:
        assert bodies(store.queue("q")) == [b"before"]


def test_many_messages_of_many_processes(url: str, path: Path, killed: Callable[..., str]) -> None:
    killed("q = store.queue('q')\nfor i in range(3000): q.put('x' * (i % 2000))")
    killed("q = store.queue('q')\nfor i in range(1500): q.get(timeout=0).ack()")
    lose_arena(path)
    with celeriac.connect(url) as store:
        assert [len(b) for b in bodies(store.queue("q"))] == [i % 2000 for i in range(1500, 3000)]


def test_segments_are_compacted_in_use(url: str, path: Path) -> None:
    with celeriac.connect(url, durability="process") as store:
        queue = store.queue("q")
        keep = queue.put("kept")
        end = time.monotonic() + 60
        most = 0
        for n in range(400):
            queue.put(bytes(1 << 20), priority=9)
            message = queue.get(timeout=0)
            assert message is not None
            message.ack()
            segments = store.stats()["journal_segments"]
            most = max(most, segments)
            if segments < most or time.monotonic() > end:
                break
            if n > 100:
                time.sleep(0.01)
        assert segments < most, "nothing was removed"
        assert [m.id for m in queue.ready()] == [keep]
    lose_arena(path)
    with celeriac.connect(url) as store:
        assert bodies(store.queue("q")) == [b"kept"]


def test_next_file_is_made_ahead_where_each_put_waits_for_the_disk(url: str, path: Path) -> None:
    spare = path / "journal.spare"
    with celeriac.connect(url, durability="everysec") as store:
        for _ in range(5):
            store.queue("q").put(bytes(1 << 20))
    assert not spare.exists()
    with celeriac.connect(url, durability="always") as store:
        queue = store.queue("q")
        queue.put(b"it is a quarter full")
        deadline = time.monotonic() + 60
        while not spare.exists():
            assert time.monotonic() < deadline, "nobody makes it"
            time.sleep(0.01)
        assert spare.read_bytes() == bytes(16 << 20)
        file = spare.stat().st_ino
        for _ in range(12):
            queue.put(bytes(1 << 20))
        assert (path / "journal.0000000000000002").stat().st_ino == file
        store.destroy()
    assert not path.exists() or not list(path.iterdir())


def test_backup_and_restore(url: str, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    with celeriac.connect(url) as store:
        queue = store.queue("q", max_length=50)
        ids = [queue.put(f"m{i}") for i in range(5)]
        store.backup(file)
        queue.put("later")
        with pytest.raises(ConfigurationError, match="exists already"):
            store.backup(file)
        with pytest.raises(ConfigurationError, match="isn't empty"):
            celeriac.restore(url, file)
    other = f"file://{tmp_path / 'other'}"
    celeriac.restore(other, file)
    with celeriac.connect(other) as store:
        queue = store.queue("q")
        assert [m.id for m in queue.ready()] == ids
        assert queue.put("new") not in ids
        store.destroy()
    broken = tmp_path / "broken"
    broken.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(StoreCorrupt, match="no whole backup"):
        celeriac.restore(other, broken)
    with pytest.raises(StoreNotFound):
        celeriac.restore(other, tmp_path / "none")
    with pytest.raises(ConfigurationError, match="only those have a backup"):
        celeriac.restore("shm://app", file)


def test_backup_of_a_store_without_journal(tmp_path: Path) -> None:
    with celeriac.connect(f"shm://journal-{os.getpid()}") as store:
        with pytest.raises(ConfigurationError, match="no journal"):
            store.backup(tmp_path / "b")
        store.destroy()


def test_more_messages_than_memory_is_an_error_that_says_so(url: str, path: Path) -> None:
    with celeriac.connect(url, memory="64M") as store:
        queue = store.queue("q")
        for _ in range(20):
            queue.put(bytes(1 << 20))
    lose_arena(path)
    with celeriac.connect(url, memory="4M") as store:
        with pytest.raises(NotEnoughMemory, match=r"20 messages.*raise memory="):
            store.queue("q")
        with pytest.raises(NotEnoughMemory):
            store.queues()
    with celeriac.connect(url, memory="64M") as store:
        assert store.queue("q").counts().ready == 20


def test_damage_is_told_and_costs_no_other_message(url: str, path: Path) -> None:
    with celeriac.connect(url, durability="always") as store:
        queue = store.queue("q")
        for i in range(9):
            queue.put(f"message {i}")
    lose_arena(path)
    segment = path / "journal.0000000000000001"
    data = bytearray(segment.read_bytes())
    data[data.index(b"message 4")] ^= 1
    segment.write_bytes(data)
    with celeriac.connect(url) as store:
        assert bodies(store.queue("q")) == [f"message {i}".encode() for i in range(9) if i != 4]
        assert store.stats()["journal_damages"] == 1
