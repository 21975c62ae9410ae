"""`celeriac locks` and `celeriac limits`."""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections.abc import Iterator

import pytest

import celeriac
from celeriac.cli import FINDING, FINE, main


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    with celeriac.connect(f"shm://t-{secrets.token_hex(6)}?memory=16M") as store:
        yield store
        store.destroy(force=True)


def lines_of(text: str, name: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if name in line]


def test_who_holds_and_who_waits(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["locks", store.url]) == FINE
    assert capsys.readouterr().out == "no locks\n"
    report = store.lock("report", ttl=3600)
    report.acquire()
    thumbs = store.semaphore("thumbs\x1b[2J", 2)
    thumbs.acquire()
    waits = threading.Thread(target=lambda: store.lock("report").acquire(timeout=60))
    waits.start()
    while store.lock("report").waiting() == 0:
        pass
    assert main(["locks", store.url]) == FINE
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    first, second = lines_of(shown, "report")
    assert first[:4] == ["lock", "report", "holds", str(os.getpid())]
    assert str(report.token) in first
    assert second[:4] == ["lock", "report", "waits", str(os.getpid())]
    assert main(["locks", store.url, "--json"]) == FINE
    found = json.loads(capsys.readouterr().out)
    assert [(one["kind"], one["holds"]) for one in found] == [
        ("lock", True),
        ("lock", False),
        ("semaphore", True),
    ]
    assert 3500 < found[0]["ttl"] <= 3600
    for command in ("stats", "doctor"):
        assert main([command, store.url]) == FINE
        assert ["lock", "report", "1", "1"] in lines_of(capsys.readouterr().out, "report")
    report.release()
    waits.join()


def test_limits(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["limits", store.url]) == FINE
    shown = capsys.readouterr().out
    assert lines_of(shown, "keys in use") == [["keys", "in", "use", "0"]]
    assert "no concurrency limit is in use" in shown
    store.limiter("5/hour").hit("user:7")
    outgoing = store.concurrency("openrouter", 5)
    slots = [outgoing.acquire() for _ in range(3)]
    assert store.concurrencies() == [("openrouter", 5, 3)]
    assert main(["limits", store.url]) == FINE
    shown = capsys.readouterr().out
    assert lines_of(shown, "keys in use") == [["keys", "in", "use", "1"]]
    assert lines_of(shown, "openrouter") == [["openrouter", "3", "5"]]
    assert main(["limits", store.url, "--json"]) == FINE
    found = json.loads(capsys.readouterr().out)
    assert found["limits_keys"] == 1
    assert found["concurrency"] == {"openrouter": {"in_use": 3, "limit": 5}}
    for slot in slots:
        slot.release()
    assert store.concurrencies() == []


@pytest.mark.parametrize("command", ["locks", "limits"])
def test_a_store_that_is_not_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"t-{secrets.token_hex(6)}"
    assert main([command, f"shm://{name}"]) == FINDING
    assert name in capsys.readouterr().err
