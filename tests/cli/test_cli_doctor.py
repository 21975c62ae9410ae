"""What `celeriac doctor` finds in a store that works, and what the documents say of it."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import celeriac
import celeriac.errors
from celeriac.cli import FINDING, FINE, findings, main

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "troubleshooting.md").read_text()


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    with celeriac.connect(f"shm://t-{secrets.token_hex(6)}?memory=8M") as store:
        yield store
        store.destroy(force=True)


def codes(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What doctor finds; each with a line that says what to do."""
    code = main(["doctor", store.url])
    report = capsys.readouterr().out
    found = re.findall(r"^(D\d\d): .*\n     (\S.*)$", report, re.MULTILINE)
    assert code == (FINDING if found else FINE), report
    assert ("nothing to repair" in report) == (not found)
    assert all(cure == findings.CURES[each] for each, cure in found)
    return [each for each, _ in found]


def test_dead_and_paused(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    queue = store.queue("mail\x1b[31m", max_deliveries=1)
    queue.put("a")
    assert codes(store, capsys) == []
    message = queue.get(0)
    assert message is not None
    message.nack(reason="no such address")
    assert codes(store, capsys) == ["D09"]
    queue.purge_dead()
    queue.put("b")
    queue.pause()
    assert codes(store, capsys) == ["D11"]


def test_nobody_takes_them(
    store: celeriac.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = store.queue("mail")
    queue.put("a")
    monkeypatch.setattr(celeriac.Queue, "oldest_age", lambda self: 61.0)
    assert codes(store, capsys) == ["D10"]
    queue.put("b")
    assert queue.get(0) is not None, "which makes this process a consumer"
    assert codes(store, capsys) == ["D10"][:0]


def fill(table: Any) -> None:
    """Entries until there is no memory for one."""
    for number in range(45, 200):
        table.set(str(number), b"x" * 100_000)


def test_memory(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    cache = store.cache("c")
    for number in range(200):
        cache.set(str(number), b"x" * 100_000, ttl=None)
    assert codes(store, capsys) == [], "a cache that is full is as it should be"
    cache.clear()
    table = store.table("celeriac.celery.results")
    for number in range(45):
        table.set(str(number), b"x" * 100_000)
    assert codes(store, capsys) == ["D13"]
    with pytest.raises(celeriac.NotEnoughMemory):
        fill(table)
    assert codes(store, capsys) == ["D07", "D13"]


def test_a_file_system_that_is_too_small(
    store: celeriac.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = os.statvfs(store.path)
    small: Any = type("Small", (), {"f_bavail": 1, "f_frsize": 4096, "f_blocks": there.f_blocks})
    monkeypatch.setattr(os, "statvfs", lambda path: small)
    assert codes(store, capsys) == ["D08"]


def test_another_users_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELERIAC_SHM_DIR", str(tmp_path))
    with celeriac.connect("shm://app") as store:
        (tmp_path / "celeriac-987654" / "other").mkdir(parents=True)
        assert codes(store, capsys) == []
        (tmp_path / "celeriac-987654" / "app").mkdir()
        assert codes(store, capsys) == ["D12"]


def rows() -> list[tuple[str, str, str]]:
    """Symptom, codes and cure of each problem that the document names."""
    found = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", TEXT, re.MULTILINE)
    return [row for row in found if row[0] not in ("what you see", "---")]


def test_every_problem_has_a_code_and_a_cure() -> None:
    assert len(rows()) >= 20
    checks = "".join(
        (ROOT / "python" / "celeriac" / "django" / name).read_text()
        for name in ("checks.py", "deployment.py")
    )
    for symptom, told, cure in rows():
        names = re.findall(r"`([^`]+)`", told)
        assert names, f"{symptom}: no code"
        assert len(cure) > 10, f"{symptom}: nothing says what to do"
        for name in names:
            if re.fullmatch(r"D\d\d", name):
                assert name in findings.CURES, name
            elif name.startswith("celeriac."):
                assert f'id="{name}"' in checks, name
            else:
                assert name in celeriac.errors.__all__, name


def test_every_code_is_named() -> None:
    told = {name for _, names, _ in rows() for name in re.findall(r"`([^`]+)`", names)}
    assert findings.CURES.keys() <= told
    assert set(celeriac.errors.__all__) - {"CeleriacError"} <= told
