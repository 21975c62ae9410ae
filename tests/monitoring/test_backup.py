"""The backup that the timer makes, and what is restored of it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

import celeriac
from celeriac.monitoring import Options, write


def commands(pack: Path) -> tuple[list[str], list[str]]:
    """What the timer's service runs, and how its script says that a copy is restored."""
    unit = (pack / "systemd/celeriac-backup.service").read_text()
    (backup,) = re.findall(r"^ExecStart=(.+)$", unit, re.MULTILINE)
    script = (pack / "backup/backup.sh").read_text()
    (restore,) = re.findall(r"^# +(\S+ -m celeriac restore .+)$", script, re.MULTILINE)
    return shlex.split(backup), shlex.split(restore)


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.worker
def test_what_the_timer_backed_up_is_restored(tmp_path: Path) -> None:
    queues, new, backups = tmp_path / "queues", tmp_path / "new", tmp_path / "backups"
    backups.mkdir()
    pack = tmp_path / "pack"
    write(pack, Options(queues=f"file://{queues}", backups=str(backups), keep_days=2))
    backup, restore = commands(pack)
    old, recent, foreign = (
        backups / name for name in ("celeriac-1.backup", "celeriac-2.backup", "notes")
    )
    for path, days in ((old, 4), (recent, 1), (foreign, 4)):
        path.touch()
        os.utime(path, (time.time() - days * 86400,) * 2)

    failed = run(backup)
    assert failed.returncode == 1
    assert "there is no store" in failed.stderr
    assert set(backups.iterdir()) == {old, recent, foreign}, "no copy, so the old ones stay"

    with celeriac.connect(f"file://{queues}") as store:
        queue = store.queue("mail")
        queue.put_many([b"1", b"2"])
        queue.put(b"later", delay=3600)
        done = run(backup)  # while the store is in use
        assert done.returncode == 0, done.stderr
        queue.put(b"after it")
        store.destroy(force=True)
    (copy,) = set(backups.iterdir()) - {recent, foreign}
    assert copy != old
    assert copy.stat().st_mode & 0o077 == 0
    assert "1 queues, 3 messages" in done.stdout
    assert "nothing that was promised is missing" in done.stdout

    places = {"file:///NEW/DIRECTORY": f"file://{new}", "FILE": str(copy)}
    done = run([places.get(word, word) for word in restore])
    assert done.returncode == 0, done.stderr
    with celeriac.connect(f"file://{new}") as store:
        queue = store.queue("mail", create=False)
        assert [message.body for message in (queue.get(0), queue.get(0)) if message] == [b"1", b"2"]
        assert (queue.counts().delayed, queue.get(0)) == (1, None)
        store.destroy(force=True)
