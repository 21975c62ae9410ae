"""The count of the tasks, from the rows that their own effects left in the shop's database.

Sent: the ids that the webhook acknowledged to the driver, and those that beat wrote down. Done: the
ids with a finished attempt. Lost: sent and not done when the deadline for draining has passed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class TaskCount:
    """What became of the tasks. Times in milliseconds, rates per second.

    `repeated` counts tasks that were done more than once, which at-least-once delivery allows.
    `waits` are the times from sending to the start of the first attempt.
    """

    sent: int = 0
    done: int = 0
    retried: int = 0
    lost: int = 0
    repeated: int = 0
    per_second: float = 0.0
    by_kind: dict[str, int] = field(default_factory=dict)
    waits: list[float] = field(default_factory=list)


class Ledger:
    """Reads the shop's database of one phase."""

    def __init__(self, database: Path) -> None:
        self._uri = f"{database.as_uri()}?mode=ro"

    def undone(self, acknowledged: Iterable[str]) -> set[str]:
        """The tasks that were sent and aren't done yet."""
        done = {
            row[0] for row in self._rows("SELECT task_id FROM shop_taskrun WHERE outcome='done'")
        }
        return (set(acknowledged) | self._scheduled()) - done

    def count(self, acknowledged: Iterable[str], began_at: float, seconds: float) -> TaskCount:
        """The final count; the rate is that of the `seconds` of load from `began_at` on."""
        sent = set(acknowledged) | self._scheduled()
        runs = self._rows(
            "SELECT task_id, kind, attempt, outcome, sent, started, finished FROM shop_taskrun"
        )
        finished = [run for run in runs if run[3] == "done"]
        done = {run[0] for run in finished}
        during_load = [run for run in finished if began_at <= run[6] < began_at + seconds]
        by_kind: dict[str, int] = {}
        for run in finished:
            by_kind[run[1]] = by_kind.get(run[1], 0) + 1
        return TaskCount(
            sent=len(sent),
            done=len(done),
            retried=sum(run[3] == "retry" for run in runs),
            lost=len(sent - done),
            repeated=len(finished) - len(done),
            per_second=len(during_load) / seconds,
            by_kind=by_kind,
            waits=[
                round(max(0.0, run[5] - run[4]) * 1000, 3)
                for run in runs
                if run[2] == 0 and run[4] is not None
            ],
        )

    def _scheduled(self) -> set[str]:
        return {row[0] for row in self._rows("SELECT task_id FROM shop_scheduledtask")}

    def _rows(self, sql: str) -> list[Any]:
        with closing(sqlite3.connect(self._uri, uri=True, timeout=20)) as database:
            return database.execute(sql).fetchall()
