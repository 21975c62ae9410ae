"""`celeriac queues` and what it can do to a queue."""

from __future__ import annotations

import io
import json
import secrets
import threading
from collections.abc import Iterator

import pytest

import celeriac
from celeriac.cli import BAD_USAGE, FINDING, FINE, main


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    with celeriac.connect(f"shm://t-{secrets.token_hex(6)}?memory=16M") as store:
        yield store
        store.destroy(force=True)


def run(*arguments: str) -> int:
    """The exit code, argparse's own included."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(str(end.code))


def kill(queue: celeriac.Queue, body: str, reason: str) -> str:
    """Let a message die; its id."""
    id = queue.put(body)
    message = queue.get(0)
    assert message is not None
    message.nack(reason=reason)
    return id


@pytest.mark.parametrize("command", ["queues", "dead", "retry", "purge", "pause", "resume"])
def test_help_and_bad_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command, "--help") == FINE
    assert "usage: celeriac" in capsys.readouterr().out
    assert run(command) == BAD_USAGE
    arguments = [] if command == "queues" else ["q"]
    assert run(command, "nonsense://x", *arguments) == BAD_USAGE
    name = f"t-{secrets.token_hex(6)}"
    assert run(command, f"shm://{name}", *arguments) == FINDING
    assert name in capsys.readouterr().err


def test_a_queue_that_is_not_there(
    store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.queue("mail")
    for command in ("dead", "retry", "purge", "pause", "resume"):
        assert run(command, store.url, "male") == FINDING
        error = capsys.readouterr().err
        assert "'male'" in error
        assert "there are: mail" in error
    assert store.queues() == ["mail"]


def test_queues(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("queues", store.url) == FINE
    assert "no queues" in capsys.readouterr().out
    mail = store.queue("mail", max_deliveries=1)
    mail.put("a")
    mail.put("later", delay=60)
    kill(mail, "b", "no such address")
    store.queue("idle\x1b[31m").pause()
    assert run("queues", store.url, "--seconds=0.05", "--json") == FINE
    rows = json.loads(capsys.readouterr().out)
    states = ("ready", "delayed", "reserved", "dead", "done", "consumers", "state")
    assert [rows["mail"][state] for state in states] == [1, 1, 0, 1, 0, 0, "open"]
    assert 0 <= rows["mail"]["oldest_seconds"] < 60
    assert rows["mail"]["put_per_second"] == 0
    assert rows["idle\x1b[31m"]["state"] == "paused"
    assert rows["idle\x1b[31m"]["oldest_seconds"] is None
    assert run("queues", store.url, "--seconds=0") == FINE
    shown = capsys.readouterr().out
    assert "oldest_seconds" in shown
    assert "mail" in shown
    assert "\x1b" not in shown


def test_rates_and_consumers(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    queue = store.queue("busy")
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            queue.put("x")
            message = queue.get(0)
            assert message is not None
            message.ack()

    kept = queue.put("mine"), queue.get(0)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert run("queues", store.url, "--seconds=0.3", "--json") == FINE
    finally:
        stop.set()
        thread.join()
    row = json.loads(capsys.readouterr().out)["busy"]
    assert row["done_per_second"] > 10
    assert row["put_per_second"] > 10
    assert row["consumers"] == 1
    assert row["reserved"] >= 1
    assert kept


def test_dead_retry_purge(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    queue = store.queue("mail", max_deliveries=1)
    assert run("dead", store.url, "mail") == FINE
    assert "no dead messages" in capsys.readouterr().out
    ids = [kill(queue, f"letter {i}\n", f"reason {i}") for i in range(3)]
    assert run("dead", store.url, "mail", "--limit=2") == FINDING
    shown = capsys.readouterr().out
    assert ids[0] in shown
    assert "reason 1" in shown
    assert ids[2] not in shown
    assert "1 more: --limit 3" in shown
    assert run("dead", store.url, "mail", "--json") == FINDING
    found = json.loads(capsys.readouterr().out)
    assert [message["id"] for message in found] == ids
    assert found[0]["body"] == "letter 0\n"

    assert run("retry", store.url, "mail", "nonsense") == BAD_USAGE
    assert run("retry", store.url, "mail", ids[1], "0" * 16) == FINDING
    captured = capsys.readouterr()
    assert "1 put back" in captured.out
    assert "1 of these ids" in captured.err
    assert run("retry", store.url, "mail") == FINE
    assert "2 put back" in capsys.readouterr().out
    assert queue.counts()[:4] == (3, 0, 0, 0)


@pytest.mark.parametrize(("answer", "left"), [("y\n", 0), ("n\n", 2), ("", 2), ("yes\n", 0)])
def test_purge_asks_first(
    store: celeriac.Store,
    answer: str,
    left: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    queue = store.queue("mail", max_deliveries=1)
    kill(queue, "dead", "x")
    queue.put("a")
    queue.put("b", delay=60)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    assert run("purge", store.url, "mail") == (FINDING if left else FINE)
    assert "remove 2 ready and delayed messages of 'mail'?" in capsys.readouterr().out
    counts = queue.counts()
    assert counts.ready + counts.delayed == left
    assert counts.dead == 1
    assert run("purge", store.url, "mail", "--dead", "--yes") == FINE
    assert "1 removed" in capsys.readouterr().out
    assert queue.counts().dead == 0


def test_pause_and_resume(store: celeriac.Store) -> None:
    queue = store.queue("mail")
    queue.put("a")
    assert run("pause", store.url, "mail") == FINE
    assert queue.paused
    assert queue.get(0) is None
    assert run("resume", store.url, "mail") == FINE
    message = queue.get(0)
    assert message is not None
    message.ack()
