"""The numbers, the table, the goals and the page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

from celeriac.demo.errors import DemoError
from celeriac.demo.ledger import TaskCount
from celeriac.demo.options import DemoOptions
from celeriac.demo.phase import PhaseResult
from celeriac.demo.plan import KINDS
from celeriac.demo.report.files import write_json, write_page
from celeriac.demo.report.goals import went_wrong
from celeriac.demo.report.page import page
from celeriac.demo.report.summary import hit_ratio, percentile, summarize
from celeriac.demo.report.svg import LogScale, round_ticks
from celeriac.demo.report.table import table
from celeriac.demo.run import DemoResult
from celeriac.demo.stacks import STACKS
from celeriac.demo.usage import Memory


def tally(outcomes: str, answered: int, webhook_ms: float) -> dict[str, Any]:
    milliseconds: dict[str, list[float]] = {kind: [1.0, 2.0, 3.0] for kind in KINDS}
    milliseconds["webhook"] = [webhook_ms]
    milliseconds["login"] = []
    return {
        "began_at": 0.0,
        "seconds": 2.0,
        "answered": answered,
        "failed": [],
        "stale": 0,
        "tasks": [],
        "outcomes": outcomes,
        "milliseconds": milliseconds,
        "timeline": [10, 20, 5],
    }


def phase(stack: str, outcomes: str, answered: int, webhook_ms: float = 5.0) -> PhaseResult:
    waits = [] if stack == "locmem" else [1.0, 5.0, 20.0]
    return PhaseResult(
        STACKS[stack],
        load=tally(outcomes, answered, webhook_ms),
        warm_up=tally("", 0, 0.0),
        tasks=TaskCount(sent=3, done=3, retried=1, per_second=1.5, waits=waits),
        memory=Memory(400 << 20, 300 << 20),
        backend_bytes=0 if stack == "locmem" else 12 << 20,
        processes=9,
        cpu_seconds=0.4,
        drain_seconds=1.0,
    )


@pytest.fixture
def result() -> DemoResult:
    return DemoResult(
        DemoOptions(),
        "abc",
        phases=[
            phase("locmem", "mmhh", 100),
            phase("celeriac", "mhhhhhhh", 300),
            phase("redis", "mhhhmm", 200),
        ],
        versions={"python": "3.11"},
    )


def goals(result: DemoResult) -> list[bool | None]:
    return [goal["met"] for goal in summarize(result)["goals"]]


def test_percentiles_are_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1)] == [50, 95, 99, 100]
    assert percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) is None


def test_hit_ratio_counts_cached_views_only() -> None:
    assert hit_ratio("hm.!h ") == pytest.approx(2 / 3)
    assert hit_ratio("..!") is None


def test_hit_ratios_are_compared_over_the_same_requests(result: DemoResult) -> None:
    summary = summarize(result)
    assert summary["same_requests"] == 4
    assert [p["hit_ratio_same"] for p in summary["phases"]] == [0.5, 0.75, 0.75]
    assert summary["phases"][1]["hit_ratio"] == pytest.approx(7 / 8)


def test_goals_are_met(result: DemoResult) -> None:
    assert goals(result) == [True, True, True, True]
    assert went_wrong(summarize(result)["phases"]) == []


def test_goals_that_are_missed(result: DemoResult) -> None:
    locmem, ours, redis = result.phases
    ours.tasks.lost = 1
    locmem.load["outcomes"] = "hhhh"
    redis.load["answered"] = 301
    ours.load["milliseconds"]["webhook"] = [100.0]
    assert goals(result) == [False, False, False, False]


def test_goals_of_phases_that_did_not_run(result: DemoResult) -> None:
    result.phases = result.phases[1:2]
    assert goals(result) == [True, None, None, True]
    result.phases = []
    assert goals(result) == [None, None, None, None]


def test_lost_tasks_and_failed_requests_are_findings(result: DemoResult) -> None:
    result.phases[1].tasks.lost = 2
    result.phases[2].load["failed"] = ["product 3: status 500 after 1 ms"]
    problems = went_wrong(summarize(result)["phases"])
    assert len(problems) == 2
    assert "celeriac: 2 tasks lost" in problems[0]
    assert "product 3: status 500" in problems[1]


def test_table_has_a_column_for_each_stack(result: DemoResult) -> None:
    heads, rows = table(summarize(result))
    assert heads == ["", "LocMem", "celeriac", "Redis"]
    assert all(len(row) == len(heads) for row in rows)
    cells = {row[0].strip(): row[1:] for row in rows}
    assert cells["processor time per request, ms"] == ["4.00", "1.33", "2.00"]
    assert cells["requests/s"] == ["50", "150", "100"]
    assert cells["over the same 4 requests"] == ["50.0%", "75.0%", "75.0%"]
    assert cells["tasks sent/done"] == ["3 / 3"] * 3
    assert cells["login, ms  p50/p95/p99"] == ["–"] * 3


def test_page_is_whole_and_loads_nothing(result: DemoResult) -> None:
    result.skipped["redis"] = "no <redis-server> here"
    text = page(summarize(result))
    assert "no &lt;redis-server&gt; here" in text
    assert not re.search(r"(src|href)=|@import|url\(|http", text)
    assert "prefers-color-scheme: dark" in text
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 8
    for picture in pictures:
        xml.etree.ElementTree.fromstring(picture)
        assert "nan" not in picture


def test_page_without_a_single_phase(result: DemoResult) -> None:
    result.phases = []
    assert "celeriac demo" in page(summarize(result))


def test_files_are_written_whole(result: DemoResult, tmp_path: Path) -> None:
    summary = summarize(result)
    write_json(tmp_path / "r.json", summary)
    write_page(tmp_path / "r.html", summary)
    assert json.loads((tmp_path / "r.json").read_text()) == summary
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.json"]
    with pytest.raises(DemoError, match="can't write"):
        write_json(tmp_path / "missing" / "r.json", summary)


def test_axes() -> None:
    assert round_ticks(1800) == [0, 500, 1000, 1500, 2000]
    assert round_ticks(0)[0] == 0
    scale = LogScale([2, 300], 100, 400)
    assert [scale(value) for value in scale.ticks()] == [100, 200, 300, 400]
    assert scale(0) == 100
