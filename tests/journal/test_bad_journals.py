"""Journals and directories that aren't as they should be: said, and nothing else lost."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import reader

import celeriac
from celeriac import cli


def fill(url: str, bodies: list[str]) -> None:
    with celeriac.connect(url, durability="always") as store:
        for body in bodies:
            store.queue("q").put(body)


def bodies(url: str) -> list[bytes]:
    with celeriac.connect(url) as store:
        return [bytes(m.body) for m in store.queue("q").ready(1000)]  # type: ignore[arg-type]


def lose_arena(path: Path) -> None:
    (path / "arena").unlink()


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("journal.*"))


def test_segment_missing_in_the_middle(
    url: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for generation in "abc":
        fill(url, [f"{generation}{i}" for i in range(3)])
        lose_arena(path)  # the next one begins another segment
    assert len(segments(path)) == 3
    lost = segments(path)[1]
    lost.unlink()
    assert cli.main(["verify", url]) == cli.FINDING
    assert f"{lost.name} at offset 0: the file is missing" in capsys.readouterr().out
    assert bodies(url) == [b"a0", b"a1", b"a2", b"c0", b"c1", b"c2"]
    with celeriac.connect(url) as store:
        assert store.stats()["journal_damages"] >= 1
        capsys.readouterr()
        assert cli.main(["doctor", url]) == cli.FINDING
        assert "the journal is damaged" in capsys.readouterr().out


def test_foreign_segment(
    url: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    fill(f"file://{other}", ["foreign"])
    for generation in "ab":
        fill(url, [f"{generation}{i}" for i in range(3)])
        lose_arena(path)
    place = path / "journal.0000000000000003"
    shutil.copy(segments(other)[0], place)
    assert cli.main(["verify", url]) == cli.FINDING
    assert f"{place.name}" in capsys.readouterr().out
    assert bodies(url) == [b"a0", b"a1", b"a2", b"b0", b"b1", b"b2"]
    celeriac.connect(f"file://{other}").destroy()


def test_what_is_no_segment(url: str, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(url, ["a"])
    lose_arena(path)
    noise = path / "journal.0000000000000002"
    noise.write_bytes(os.urandom(5000))
    noise.chmod(0o600)
    assert cli.main(["verify", url]) == cli.FINDING
    assert noise.name in capsys.readouterr().out
    assert bodies(url) == [b"a"]
    fill(url, ["b"])
    lose_arena(path)
    assert bodies(url) == [b"a", b"b"]


def test_clock_that_was_set_back(url: str, path: Path) -> None:
    """Records from the future: delays last as long as the clock says, and nothing else minds."""
    with celeriac.connect(url, durability="always") as store:
        store.queue("q").put("now")
        store.queue("q").put("later", delay=5, dedup_key="k", dedup_ttl=5)
    lose_arena(path)
    year = 365 * 86_400 * 10**9
    (segment,) = segments(path)
    data = bytearray(segment.read_bytes())
    head, _ = reader.header(bytes(data))
    assert head is not None
    journal = reader.Journal()
    for r in list(reader.records(journal, 1, head, bytes(data), head.first_lsn)):
        if r.kind != reader.PUT:
            continue
        payload = r.offset + reader.RECORD.size
        for at in (8, 24):  # due, put
            (moment,) = struct.unpack_from("<Q", data, payload + at)
            if moment:
                struct.pack_into("<Q", data, payload + at, moment + year)
        end = r.offset + (r.length + 7) // 8 * 8
        sum_ = reader.crc(
            bytes(data[r.offset + 4 : payload]), reader.crc(bytes(data[payload:end])) ^ head.salt
        )
        struct.pack_into("<I", data, r.offset, sum_)
    segment.write_bytes(data)
    with celeriac.connect(url) as store:
        queue = store.queue("q")
        assert queue.counts()[:2] == (1, 1)
        assert 364 * 86_400 < queue.delayed()[0].due_in < 366 * 86_400
        assert queue.oldest_age() >= 0
        message = queue.get(timeout=0)
        assert message is not None
        assert message.body == b"now"
        message.ack()
        queue.put("new")
        assert queue.counts().ready == 1


def test_read_only_directory(url: str, path: Path) -> None:
    fill(url, ["a"])
    lose_arena(path)
    code = (
        "import celeriac, os, sys\n"
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: celeriac.connect(sys.argv[1]).queue('q').put('x')\n"
        "except celeriac.CeleriacError as error: print(type(error).__name__, error)\n"
    )
    if os.geteuid() == 0:
        for parent in path.parents[:2]:
            parent.chmod(0o755)
        os.chown(path, 65534, 65534)
        for segment in segments(path):
            os.chown(segment, 65534, 65534)
    path.chmod(0o500)
    done = subprocess.run(
        [sys.executable, "-c", code, url],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    path.chmod(0o700)
    assert done.stderr == ""
    assert str(path) in done.stdout
    assert "Permission denied" in done.stdout or "permissions" in done.stdout
    if os.geteuid() == 0:
        os.chown(path, 0, 0)
        for segment in segments(path):
            os.chown(segment, 0, 0)
    assert bodies(url) == [b"a"]


FULL = """
import contextlib, ctypes, os, sys, celeriac
libc = ctypes.CDLL(None, use_errno=True)
root = sys.argv[1]
if libc.mount(b"none", root.encode(), b"tmpfs", 0, b"size=80m"):
    sys.exit("no mount")
url = f"file://{root}/store?memory=16M&durability=always"
body = bytes(100_000)
with celeriac.connect(url) as store:
    queue = store.queue("q")
    queue.put_many([body] * 50)  # the arena has grown
    for message in queue.get_many(50, timeout=0):
        message.ack()
    with open(f"{root}/fill", "wb", buffering=0) as fill, contextlib.suppress(OSError):
        while True:  # the store makes its next file about now
            fill.write(bytes(65536))
    put = 0
    try:
        while True:  # what is taken goes from memory, and stays on the disk until it is compacted
            queue.put(body)
            put += 1
            if put % 16:
                queue.get(timeout=0).ack()
    except celeriac.NotEnoughMemory as error:
        print(error)
    queue.get(timeout=0).nack(reason="later")  # what is there can be worked off
    queue.get(timeout=0).ack()
    queue.pause()
    queue.resume()
    ready = queue.counts().ready
    os.unlink(f"{root}/fill")
    queue.put(body)
os.unlink(f"{root}/store/arena")
with celeriac.connect(url) as store:
    print(ready + 1 == store.queue("q").counts().ready)
"""


def test_full_disk(tmp_path: Path) -> None:
    wrapper = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "-r"]
    if shutil.which("unshare") is None:
        pytest.skip("no unshare: install util-linux")
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        [*wrapper, sys.executable, "-c", FULL, str(tmp_path / "disk")],
        capture_output=True,
        text=True,
        check=False,
    )
    if "no mount" in done.stderr or "unshare failed" in done.stderr:
        pytest.skip("no mounts in namespaces here")
    assert done.stderr == ""
    error, same = done.stdout.splitlines()
    assert "MiB more and its file system has" in error
    assert "make room there; nothing was put" in error
    assert same == "True"
