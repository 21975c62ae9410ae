"""Workers that are killed: nothing is lost, nothing stays behind."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from processes import wait_until

import celeriac

pytestmark = pytest.mark.worker

PATIENCE = 60


def test_a_killed_worker_has_its_late_tasks_redelivered(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    first = worker("w1")
    slow = app.tasks["worker_app.slow"]
    results = [slow.delay(str(number), 600, 0.1) for number in range(4)]
    counts = celeriac.connect(store_url).queue("celery").counts
    wait_until(lambda: counts().reserved == 4, what="all tasks taken")
    wait_until(lambda: len(first.noted()) == 2, what="two tasks at work")
    first.kill()
    second = worker("w2")
    assert [result.get(timeout=PATIENCE) for result in results] == ["0", "1", "2", "3"]
    again = [line for line in second.noted() if line.endswith("again")]
    assert len(again) >= 2, second.noted()
    ends = [line for line in second.noted() if line.startswith("end")]
    assert sorted(ends) == [f"end {number}" for number in range(4)]


def test_an_idle_worker_takes_over_at_once(app: Any, worker: Callable[..., Any]) -> None:
    first = worker("w1", "-Q", "celery", pool="solo")
    result = app.tasks["worker_app.slow"].delay("x", 600, 0.1)
    wait_until(lambda: first.noted() == ["start x"], what="the task to start")
    worker("w2", "-Q", "celery", pool="solo")
    first.kill()
    assert result.get(timeout=PATIENCE) == "x"
    assert first.noted() == ["start x", "start x again", "end x"]


def test_control_and_event_queues_die_with_their_worker(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    process = worker("w1")
    assert app.control.ping(timeout=60, limit=1)
    store = celeriac.connect(store_url)
    assert any(name.endswith("w1@test.celery.pidbox") for name in store.queues())
    process.kill()

    def leftovers() -> list[str]:
        store.recover()
        return [name for name in store.queues() if "pidbox" in name or "celeryev" in name]

    wait_until(lambda: not leftovers(), seconds=20, what="transient queues gone")
    assert app.control.ping(timeout=0.5) == []


def test_a_burst_over_repeated_kills_loses_nothing(app: Any, worker: Callable[..., Any]) -> None:
    slow = app.tasks["worker_app.slow"]
    results = [slow.delay(str(number), 0.05) for number in range(60)]
    for round_number in range(3):
        process = worker(f"w{round_number}")
        time.sleep(0.5)
        process.kill()
    last = worker("last")
    assert [r.get(timeout=PATIENCE) for r in results] == [str(n) for n in range(60)]
    assert {line for line in last.noted() if line.startswith("end")} == {
        f"end {number}" for number in range(60)
    }


def test_a_worker_whose_store_was_destroyed_serves_the_new_one(
    app: Any, worker: Callable[..., Any], store_url: str
) -> None:
    process = worker("w1")
    add = app.tasks["worker_app.add"]
    assert add.delay(1, 2).get(timeout=PATIENCE) == 3
    celeriac.connect(store_url).destroy(force=True)
    assert add.delay(3, 4).get(timeout=PATIENCE) == 7
    assert app.control.ping(timeout=10, limit=1) == [{"w1@test": {"ok": "pong"}}]
    assert process.terminate() == 0
