"""An idle worker is left alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import voluntary_switches, wait_until

pytestmark = [pytest.mark.worker, pytest.mark.slow]

SECONDS = 20


def counts_of(process: Any, path: Path) -> dict[str, int]:
    """Ask the worker for its counters, which starts them anew."""
    before = path.read_text().count("\n") if path.exists() else 0
    os.kill(process.pid, signal.SIGUSR2)
    wait_until(lambda: path.exists() and path.read_text().count("\n") > before, what="counters")
    line = path.read_text().splitlines()[-1]
    return {key: int(value) for key, _, value in (item.partition("=") for item in line.split())}


def test_an_idle_worker_is_not_woken(app: Any, worker: Callable[..., Any], tmp_path: Path) -> None:
    """Neither the transport is called nor a thread of the process woken for it.

    Celery's own loop turns once a second. What the process is woken for beyond that, and beyond
    the two signals of this test, would be ours.
    """
    path = tmp_path / "counts"
    quiet = ["--without-mingle", "--without-gossip", "--without-heartbeat"]
    process = worker("w1", *quiet, CELERIAC_TEST_COUNTS=str(path))
    assert app.tasks["worker_app.add"].delay(1, 2).get(timeout=60) == 3
    busy = counts_of(process, path)
    assert busy["deliveries"] > 0, "the counters count nothing"
    assert busy["drains"] > 0
    time.sleep(2)
    counts_of(process, path)
    begin = time.monotonic()
    before = voluntary_switches(process.pid)
    time.sleep(SECONDS)
    switches = voluntary_switches(process.pid) - before
    idle = counts_of(process, path)
    seconds = time.monotonic() - begin  # more than was asked for on a machine that is busy
    assert idle["turns"] >= SECONDS / 10, "the loop stands still"
    assert idle["turns"] <= seconds + 4
    assert {key: idle[key] for key in ("deliveries", "drains", "nudges", "arms")} == {
        "deliveries": 0,
        "drains": 0,
        "nudges": 0,
        "arms": 0,
    }
    assert switches <= idle["turns"] + 10
    assert app.tasks["worker_app.add"].delay(3, 4).get(timeout=60) == 7
