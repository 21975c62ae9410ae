"""Counting the tasks by their rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from celeriac.demo.ledger import Ledger

Run = tuple[str, str, int, str, "float | None", float, float]


@pytest.fixture
def ledger(tmp_path: Path) -> Callable[[list[Run], list[str]], Ledger]:
    def make(runs: list[Run], scheduled: list[str]) -> Ledger:
        path = tmp_path / "shop.sqlite3"
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "CREATE TABLE shop_taskrun"
                "(task_id, kind, attempt, outcome, sent, started, finished)"
            )
            database.execute("CREATE TABLE shop_scheduledtask(task_id)")
            database.executemany("INSERT INTO shop_taskrun VALUES (?,?,?,?,?,?,?)", runs)
            database.executemany("INSERT INTO shop_scheduledtask VALUES (?)", zip(scheduled))
        return Ledger(path)

    return make


def test_lost_and_repeated_tasks_are_seen(ledger: Callable[..., Ledger]) -> None:
    runs = [
        ("a", "webhook", 0, "done", 10.0, 10.5, 11.0),
        ("b", "webhook", 0, "retry", 10.0, 10.2, 10.2),
        ("b", "webhook", 1, "done", 11.2, 11.3, 12.0),
        ("c", "notification", 0, "done", 10.0, 10.1, 20.0),
        ("c", "notification", 0, "done", 10.0, 10.1, 20.1),
        ("d", "webhook", 0, "retry", 10.0, 10.4, 10.4),
        ("tick", "analytics", 0, "done", 10.0, 10.0, 12.5),
    ]
    book = ledger(runs, ["tick", "tock"])
    assert book.undone(["a", "b", "c", "d", "e"]) == {"d", "e", "tock"}
    count = book.count(["a", "b", "c", "d", "e"], began_at=10.0, seconds=5.0)
    assert (count.sent, count.done, count.lost) == (7, 4, 3)
    assert (count.retried, count.repeated) == (2, 1)
    assert count.per_second == 3 / 5, "a, b and tick were done within the load"
    assert sorted(count.waits) == [0.0, 100.0, 100.0, 200.0, 400.0, 500.0]
    assert count.by_kind == {"webhook": 2, "notification": 2, "analytics": 1}


def test_task_inside_the_request_has_no_wait(ledger: Callable[..., Ledger]) -> None:
    count = ledger([("a", "webhook", 0, "done", None, 1.0, 2.0)], []).count(["a"], 0.0, 3.0)
    assert (count.sent, count.done, count.lost, count.waits) == (1, 1, 0, [])
