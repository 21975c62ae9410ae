"""Sentry's SDK sees tasks as with any other broker: where they were sent, and where they ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import wait_until

pytest.importorskip("sentry_sdk", reason="no sentry-sdk: pip install '.[test]'")
pytestmark = pytest.mark.worker

SUPPORT = Path(__file__).parent / "support"


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(params=["", "celeriac.celery:AMQP"])
def seen(request: pytest.FixtureRequest, store_url: str, tmp_path: Path) -> Any:
    """What was sent to Sentry by a program and by a worker, and what the program has printed."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *filter(None, sys.path)]),
        "CELERIAC_TEST_URL": store_url,
        "CELERIAC_TEST_AMQP": request.param,
    }
    ours, theirs = tmp_path / "program", tmp_path / "worker"
    options = ["--pool", "solo", "--loglevel", "INFO", "--hostname", "w1@test"]
    command = [sys.executable, "-m", "celery", "-A", "sentry_app", "worker", *options]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            command,
            env={**env, "CELERIAC_TEST_NOTES": str(theirs)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        done = subprocess.run(
            [sys.executable, str(SUPPORT / "sentry_app.py")],
            env={**env, "CELERIAC_TEST_NOTES": str(ours)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        wait_until(lambda: len(transactions(read(theirs))) == 3)
    finally:
        worker.kill()
        worker.wait()
    return read(ours), read(theirs), json.loads(done.stdout)


def transactions(found: list[Any]) -> dict[str, Any]:
    """Those of tasks, by the id of the task."""
    return {
        each["contexts"]["trace"]["data"].get("messaging.message.id")
        or each["spans"][0]["data"]["messaging.message.id"]: each
        for each in found
        if each.get("type") == "transaction"
    }


def test_spans_of_tasks(seen: Any) -> None:
    ours, theirs, told = seen
    (sent,) = (each for each in ours if each.get("type") == "transaction")
    spans = [span for span in sent["spans"] if span["op"] == "queue.publish"]
    assert [span["description"] for span in spans] == ["shop.note", "shop.note", "shop.fail"]
    assert [span["data"]["messaging.message.id"] for span in spans] == told["ids"]
    assert {span["data"]["messaging.system"] for span in spans} == {"celeriac"}
    assert {span["data"]["messaging.destination.name"] for span in spans} == {"celery"}

    ran = transactions(theirs)
    assert set(ran) == set(told["ids"])
    for each in ran.values():
        assert each["contexts"]["trace"]["trace_id"] == told["trace"], "one trace: headers arrive"
        (process,) = (span for span in each["spans"] if span["op"] == "queue.process")
        assert process["data"]["messaging.system"] == "celeriac"
        assert process["data"]["messaging.destination.name"] == "celery"
        assert process["data"]["messaging.message.retry.count"] == 0
        assert 0 <= process["data"]["messaging.message.receive.latency"] < 120_000
    (error,) = (each for each in theirs if "exception" in each)
    assert error["exception"]["values"][-1]["type"] == "LookupError"
    assert error["contexts"]["trace"]["trace_id"] == told["trace"]
