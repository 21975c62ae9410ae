"""`celeriac probe worker`, of real workers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from processes import wait_until

from celeriac.cli import BAD_USAGE, FINDING, FINE, main

pytestmark = pytest.mark.worker


def probe(*arguments: str) -> int:
    try:
        return main(["probe", "worker", *arguments])
    except SystemExit as end:
        return int(str(end.code))


def stop(pid: int) -> None:
    """SIGSTOP, and wait until it holds."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)


def test_a_worker_lives_and_dies(
    store_url: str, worker: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    process = worker("w1")
    wait_until(lambda: probe(store_url) == FINE and "takes from" in capsys.readouterr().out)
    assert probe(store_url) == FINE
    assert capsys.readouterr().out.startswith("w1@test: ")
    for url in (f"celeriac+{store_url}", store_url.partition("?")[0]):
        assert probe(url, "--name", "w1@test", "--queue", "celery", "--json") == FINE
        (found,) = json.loads(capsys.readouterr().out)
        assert (found["name"], found["state"]) == ("w1@test", "alive")
        assert {"celery", "other"} <= set(found["queues"])
        assert found["pid"] == process.pid
    assert probe(store_url, "--ping", "30") == FINE
    assert probe(store_url, "--name", "w2@test") == FINDING
    assert "no Celery worker of the name 'w2@test'" in capsys.readouterr().err
    assert probe(store_url, "--queue", "nobodys") == FINDING

    pid = process.pid
    stop(pid)
    try:
        assert probe(store_url) == FINDING
        assert "w1@test: stopped" in capsys.readouterr().out
    finally:
        os.kill(pid, signal.SIGCONT)
    os.waitid(os.P_PID, pid, os.WCONTINUED)
    assert probe(store_url, "--ping", "30") == FINE

    os.kill(pid, signal.SIGKILL)
    process.process.wait()
    assert probe(store_url) == FINDING
    assert "no Celery worker is attached" in capsys.readouterr().err


def test_a_worker_whose_loop_is_busy(
    store_url: str, worker: Callable[..., Any], app: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    process = worker("w1", pool="solo")
    assert probe(store_url, "--ping", "30") == FINE
    app.tasks["worker_app.slow"].delay("x", 600)
    wait_until(lambda: process.noted() == ["start x"])
    assert probe(store_url, "--ping", "0.2") == FINDING
    assert "w1@test: stuck" in capsys.readouterr().out
    assert probe(store_url) == FINE, "it lives"


def test_a_worker_without_remote_control(
    store_url: str, celery: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    process = celery(
        "w1",
        *("worker", "--pool=solo", "--hostname=w1@test", "--loglevel=INFO"),
        CELERIAC_TEST_CONF='{"worker_enable_remote_control": false}',
    )
    process.wait_for("w1@test ready.")
    assert probe(store_url) == FINDING
    assert "--queue" in capsys.readouterr().err
    assert probe(store_url, "--queue", "celery") == FINE
    assert "a worker without remote control: alive" in capsys.readouterr().out
    assert probe(store_url, "--queue", "celery", "--ping", "1") == BAD_USAGE
