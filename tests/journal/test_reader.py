"""celeriac's own reader and one written from the format's description read the same."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import reader

import celeriac
from celeriac import _core, cli

SEGMENT = "journal.0000000000000001"


def fill(url: str) -> None:
    with celeriac.connect(url, durability="always") as store:
        mail, other = store.queue("mail", max_length=99), store.queue("other", max_deliveries=3)
        for i in range(12):
            mail.put(f"body {i}" * i, priority=i, headers={"h": i}, ttl=3600 if i % 2 else None)
        other.put("later", delay=100, dedup_key="once", dedup_ttl=3600)
        other.put("soon", dedup_key="twice")
        for _ in range(3):
            message = mail.get(timeout=0)
            assert message is not None
            message.ack()
        message = mail.get(timeout=0)
        assert message is not None
        message.nack(delay=50, reason="not now")
        for _ in range(3):
            message = other.get(timeout=0)
            assert message is not None
            message.nack(reason="never")
        store.queue("gone").put("x")
        store.queue("gone").delete()


def own(path: Path) -> dict[str, Any]:
    found = _core.verify_journal(str(path), messages=True)
    flaws = []
    for line in found["damages"]:
        place = re.match(r"journal\.([0-9a-f]{16}) at offset (\d+): (.*)", line)
        assert place
        missing = re.match(r"(\d+) record\(s\) from number (\d+)", place[3])
        if missing:
            flaws.append(["hole", int(place[1], 16), int(missing[2]), int(missing[1])])
    return {
        "records": found["records"],
        "next_lsn": found["next_number"],
        "synced": found["synced"],
        "queues": {str(n): list(q) for n, q in sorted(found["queues"].items())},
        "messages": {
            str(n): [
                queue,
                state,
                deliveries,
                priority,
                place,
                reason.hex(),
                headers.hex(),
                reader.crc(body),
            ]
            for n, (queue, state, deliveries, priority, place, reason, headers, body) in sorted(
                found["contents"].items()
            )
        },
        "keys": sorted(
            [number, queue, until, text.hex()] for number, queue, until, text in found["keys"]
        ),
        "flaws": sorted(flaws),
    }


def others(path: Path) -> dict[str, Any]:
    summary = json.loads(json.dumps(reader.summary(reader.read(path))))
    summary["flaws"] = [flaw for flaw in summary["flaws"] if flaw[0] == "hole"]
    return summary


def test_known_checksums() -> None:
    assert reader.crc(b"123456789") == 0xE3069283
    assert reader.crc(b"56789", reader.crc(b"1234")) == 0xE3069283


def test_both_read_the_same(url: str, path: Path) -> None:
    fill(url)
    assert own(path) == others(path)
    assert len(own(path)["messages"]) == 11
    (path / "arena").unlink()
    fill(url)  # a second segment, behind a tail that isn't sealed
    assert own(path) == others(path)
    assert [f for f in own(path)["flaws"] if f] == []


def test_both_read_the_same_of_damaged_ones(url: str, path: Path) -> None:
    fill(url)
    segment = path / SEGMENT
    good = segment.read_bytes().rstrip(b"\0") + bytes(64)
    rng = random.Random(5)
    different = 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.choice([1, 1, 2, 5])):
            kind = rng.randrange(3)
            at = rng.randrange(4096, len(data))
            if kind == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                sector = at // 512 * 512
                data[sector : sector + 512] = bytes(512)
                data = data[: len(good)]
            else:
                data[at : at + 8] = rng.randbytes(8)
                data = data[: len(good)]
        segment.write_bytes(data)
        ours, theirs = own(path), others(path)
        assert ours == theirs
        different += ours["records"] != reader.read(path).records + 0 or bool(ours["flaws"])
    assert different > 50, "hardly anything was damaged"


def test_both_read_a_backup(url: str, path: Path, tmp_path: Path) -> None:
    fill(url)
    with celeriac.connect(url) as store:
        store.backup(tmp_path / "backup")
    copy = tmp_path / "copy"
    celeriac.restore(f"file://{copy}", tmp_path / "backup")
    ours = own(copy)
    assert ours == others(copy)
    assert ours["messages"] == own(path)["messages"]
    theirs = reader.summary(reader.read(tmp_path / "backup"))
    assert theirs["messages"] == others(path)["messages"]


def test_reader_as_a_program(url: str, path: Path) -> None:
    fill(url)
    done = subprocess.run(
        [sys.executable, reader.__file__, path], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["messages"] == own(path)["messages"]


def test_commands(url: str, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(url)
    file = tmp_path / "backup"
    assert cli.main(["verify", url]) == cli.FINE
    assert "3 queues" not in capsys.readouterr().out
    assert cli.main(["backup", url, str(file)]) == cli.FINE
    assert cli.main(["verify", str(file)]) == cli.FINE
    assert "11 messages" in capsys.readouterr().out
    assert cli.main(["restore", f"file://{tmp_path / 'new'}", str(file)]) == cli.FINE
    assert cli.main(["verify", f"file://{tmp_path / 'new'}"]) == cli.FINE
    assert cli.main(["backup", url, str(file)]) == cli.BAD_USAGE
    assert cli.main(["verify", "shm://app"]) == cli.BAD_USAGE
    assert cli.main(["verify", str(tmp_path / "none")]) == cli.FINDING
    data = bytearray((path / SEGMENT).read_bytes())
    data[4200] ^= 1
    (path / SEGMENT).write_bytes(data)
    capsys.readouterr()
    assert cli.main(["verify", url]) == cli.FINDING
    shown = capsys.readouterr().out
    assert f"{SEGMENT} at offset 4" in shown
    assert shown.endswith("damaged\n")
