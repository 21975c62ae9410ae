"""RequestStatsMiddleware on a site of its own: headers, log, what is kept; sync and async."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import celeriac
from celeriac import _core, request_id
from celeriac.django import conf, slow_requests
from celeriac.django.durations import Durations

SITE = Path(__file__).parent / "support" / "stats_site.py"


def visit(location: str, **settings: Any) -> dict[str, Any]:
    """What the site's pages answered."""
    done = run(location, settings)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def run(location: str, settings: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SITE), location, json.dumps(settings)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def counts(answer: dict[str, Any]) -> list[int]:
    return [int(answer[f"X-{name}"]) for name in ("SQL-Queries", "Cache-Hits", "Cache-Misses")]


def test_a_site(location: str) -> None:
    found = visit(location, SLOW_REQUEST_SECONDS=0.02, SLOW_REQUESTS_KEPT=3)
    counted = found["counted"]
    assert counts(counted) == [3, 2, 5]
    assert counts(found["again"]) == [1, 0, 0]
    assert 0 < float(counted["X-Request-Time"]) < 60
    assert counted["body"] == counted["X-Request-ID"]
    assert len(counted["X-Request-ID"]) == 32
    assert counted["X-Request-ID"] != found["again"]["X-Request-ID"]
    assert "Server-Timing" not in counted
    assert found["accepted"]["X-Request-ID"] == found["accepted"]["body"] == "abc-DEF/1.2"
    assert [len(answer["X-Request-ID"]) for answer in found["insane"]] == [32] * 5
    assert counts(found["threads"]) == [0, 0, 8]
    assert (found["own"]["X-Request-ID"], found["own"]["X-Cache-Hits"]) == ("the view's", "many")
    assert found["sends"]["body"] == "for-the-task"
    for name, status in (("fails", 500), ("missing", 404), ("streams", 200)):
        assert (found[name]["status"], counts(found[name])) == (status, [0, 0, 0])
    assert found["afterwards"] is None

    logged = [line for line in found["said"] if line[0] == "site"]
    assert logged[0] == ["site", "in the view", counted["X-Request-ID"]]
    slow = [line for line in found["said"] if line[0] == "celeriac.django.slow"]
    assert any(
        line[1].startswith("slow request: GET /slow 201 in 0.0") and line[2] == "slow-one"
        for line in slow
    )
    assert any("21 queries" in line[1] and " /page 200 " in line[1] for line in slow)
    assert all(line[1].endswith(f"id {line[2]}") for line in slow)

    kept = found["kept"]
    assert len(kept) == min(len(slow), 3)
    assert found["forgotten"] == 0
    assert {request["request_id"] for request in kept} == {line[2] for line in slow[-3:]}
    assert kept == sorted(kept, key=lambda request: -request["at"])


def test_durations_are_counted_by_view_method_and_status(location: str) -> None:
    found = visit(location)
    with celeriac.connect(location) as store:
        lines = dict(
            line.rsplit(" ", 1) for line in store.metrics.exposition().decode().splitlines()
        )
    name = "celeriac_http_request_duration_seconds"
    assert lines[f'{name}_count{{view="slow",method="GET",status="201"}}'] == "1.0"
    assert float(lines[f'{name}_sum{{view="slow",method="GET",status="201"}}']) > 0.02
    assert lines[f'{name}_count{{view="",method="GET",status="404"}}'] == "1.0"
    assert found["missing"]["status"] == 404


def test_durations_without_a_store(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    durations = Durations()
    request: Any = SimpleNamespace(resolver_match=None, method="PROPFIND")
    monkeypatch.setattr(conf, "store", lambda: celeriac.connect(location, create=False))
    durations.observe(request, 200, 1.0)
    with celeriac.connect(location) as store:
        durations.observe(request, 200, 1.0)  # not asked so soon
        assert store.metrics.counts()["series"] == 0
        monkeypatch.setattr(durations, "_not_before", 0.0)
        durations.observe(request, 200, 1.0)
        line = b'_count{view="",method="other",status="200"} 1.0'
        assert line in store.metrics.exposition()


def test_requests_at_once_count_for_themselves(location: str) -> None:
    """In one thread of one event loop."""
    for number, answer in enumerate(visit(location)["at once"]):
        assert counts(answer) == [number, number, 2 * number]
        assert answer["X-Request-ID"] == answer["body"] == f"request-{number}"


def test_what_is_kept_of_a_slow_request(location: str) -> None:
    found = visit(location, SLOW_REQUEST_SECONDS=0.02)
    (slow,) = [request for request in found["kept"] if request["request_id"] == "slow-one"]
    assert 0.02 < slow.pop("seconds") < 60
    assert slow.pop("at") > 1e9
    assert slow.pop("query_seconds") == 0
    assert slow == {
        "method": "GET",
        "path": "/slow",
        "view": "slow",
        "status": 201,
        "queries": 0,
        "hits": 0,
        "misses": 0,
        "request_id": "slow-one",
    }


def test_nothing_is_slow(location: str) -> None:
    settings = {"SLOW_REQUEST_SECONDS": None, "SLOW_REQUEST_QUERIES": None}
    found = visit(location, **settings, SERVER_TIMING=True)
    assert [line for line in found["said"] if line[0] != "site"] == []
    assert found["kept"] == []
    timing = found["counted"]["Server-Timing"]
    assert timing.startswith("total;dur=")
    assert 'desc="3 queries", cache;desc="2 hits, 5 misses"' in timing


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"SLOW_REQUEST_SECOND": 1}, "unknown name 'SLOW_REQUEST_SECOND' in CELERIAC; known are"),
        ({"SLOW_REQUEST_SECONDS": "1"}, "SLOW_REQUEST_SECONDS in CELERIAC must be a number"),
        ({"SLOW_REQUEST_QUERIES": -1}, "SLOW_REQUEST_QUERIES in CELERIAC must be a number"),
        ({"SLOW_REQUEST_QUERIES": 1.5}, "SLOW_REQUEST_QUERIES in CELERIAC must be a number"),
        ({"SLOW_REQUESTS_KEPT": None}, "SLOW_REQUESTS_KEPT in CELERIAC must be a number"),
        ({"SERVER_TIMING": 1}, "SERVER_TIMING in CELERIAC must be True or False"),
        ({"STORE": 1}, "STORE in CELERIAC must be a URL"),
        ({"STORE": "nope"}, "STORE in CELERIAC: unknown store URL 'nope'"),
        ({"STORE": "shm://"}, "STORE in CELERIAC: "),
        ([], "CELERIAC must be a dictionary"),
    ],
)
def test_wrong_settings(location: str, settings: Any, said: str) -> None:
    done = run(location, settings)
    assert done.returncode != 0
    assert f"ConfigurationError: {said}" in done.stderr


def test_the_ring(location: str) -> None:
    store = celeriac.connect(location)

    def request(number: int) -> slow_requests.SlowRequest:
        return slow_requests.SlowRequest(
            float(number), 2.0, "GET", "/", "view", 200, 1, 0.1, 2, 3, f"id {number}"
        )

    assert slow_requests.latest(store) == []
    for number in range(25):
        slow_requests.note(store, request(number), 10)
    assert slow_requests.latest(store) == [request(number) for number in range(24, 14, -1)]
    slow_requests.note(store, request(99), 0)
    assert slow_requests.latest(store)[0] == request(24)


def test_a_tally_counts_its_own_context_only(location: str) -> None:
    store = celeriac.connect(location)
    cache, table = store.cache(), store.table("t")
    cache.set("k", 1)
    cache.get("k")
    tally = _core.Tally()
    token = _core.tally.set(tally)
    cache.get("k")
    cache.get("away")
    cache.get_many(["k", "away", "gone"])
    cache.get_or_set("made", lambda: 1, 10)
    table.get("away")
    _core.tally.reset(token)
    cache.get("k")
    assert (tally.hits, tally.misses) == (2, 4)
    foreign = _core.tally.set("none of ours")  # type: ignore[arg-type]
    assert cache.get("k") == 1
    _core.tally.reset(foreign)


def test_log_records_outside_of_any_request(caplog: pytest.LogCaptureFixture) -> None:
    record = logging.LogRecord("n", logging.INFO, "f", 1, "m", None, None)
    assert request_id.RequestIDFilter().filter(record)
    assert record.request_id == "-"
    token = request_id.request_id.set("r")
    request_id.RequestIDFilter().filter(record)
    request_id.request_id.reset(token)
    assert record.request_id == "r"
