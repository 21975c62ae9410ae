"""`celeriac.django.urls`: health/cache with a store of each kind, and where the page is found."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac.url import parse_url

SITE = Path(__file__).parent / "support" / "urls_site.py"


def visit(location: str, scenario: str, options: Any = None) -> Any:
    command = [sys.executable, str(SITE), location, json.dumps(options or {}), scenario]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("scenario", ["health", "health behind logins"])
def test_health(location: str, scenario: str) -> None:
    found = visit(location, scenario)
    assert found["json"]["status"] == found["again"] == found["text"]["status"] == 200
    assert json.loads(found["json"]["body"]) == {"status": "ok"}
    assert found["json"]["type"] == found["browser"]["type"] == "application/json"
    assert found["json"]["cached"] == "no-store"
    assert (found["text"]["body"], found["text"]["type"]) == ("ok\n", "text/plain; charset=utf-8")
    assert (found["head"]["status"], found["head"]["body"]) == (200, "")
    assert found["post"] == 405
    assert [found[name]["status"] for name in ("livez", "readyz")] == [200, 200]
    assert [json.loads(found[name]["body"]) for name in ("livez", "readyz")] == [
        {"status": "ok"}
    ] * 2
    with celeriac.connect(location, create=False) as store:
        assert len(store.cache("celeriac.health")) == 0


@pytest.fixture
def absent(location: str) -> dict[str, Any]:
    return {"create": False}


@pytest.fixture
def damaged(location: str) -> Iterator[dict[str, Any]]:
    """A store whose header is noise."""
    celeriac.connect(location).close()
    root = Path(os.environ.get("CELERIAC_SHM_DIR", "/dev/shm"))
    arena = root / f"celeriac-{os.geteuid()}" / parse_url(location).name / "arena"
    with arena.open("r+b") as file:
        file.write(bytes(range(100)))
    yield {}
    arena.unlink()


@pytest.fixture
def full(location: str) -> Iterator[dict[str, Any]]:
    """A store that is full of messages, so that nothing can be set."""
    with celeriac.connect(location, memory="8M") as store:
        queue = store.queue("q")
        for size in (1 << 20, 10_000, 100, 1):
            with pytest.raises(celeriac.QueueFull):
                list(iter(partial(queue.put, b"x" * size), None))
        yield {"memory": "8M"}


@pytest.fixture
def misspelt(location: str) -> dict[str, Any]:
    return {"memroy": "8M"}


UNUSABLE = [
    ("absent", "StoreNotFound"),
    ("damaged", "StoreCorrupt"),
    ("full", "NotEnoughMemory"),
    ("misspelt", "ConfigurationError"),
]


@pytest.mark.parametrize(("what", "error"), UNUSABLE)
@pytest.mark.parametrize("tolerant", [False, True])
def test_health_while_the_store_is_unusable(
    location: str, what: str, error: str, tolerant: bool, request: pytest.FixtureRequest
) -> None:
    options = {**request.getfixturevalue(what), "IGNORE_EXCEPTIONS": tolerant}
    found = visit(location, "health", options)
    assert found["json"]["status"] == found["again"] == found["head"]["status"] == 503
    told = json.loads(found["json"]["body"])
    assert told.keys() == {"status", "reason"}
    assert told["status"] == "unusable"
    assert told["reason"].startswith(f"{error}: ")
    assert "\n" not in told["reason"]
    assert found["text"]["status"] == 503
    assert found["text"]["body"].startswith(f"unusable: {error}: ")
    assert "Traceback" not in found["json"]["body"]
    assert found["livez"]["status"] == 200
    assert found["readyz"]["status"] == 503
    assert json.loads(found["readyz"]["body"]).keys() == told.keys()


def test_ready_without_its_database(location: str) -> None:
    livez, readyz, health = visit(location, "database away")
    assert [answer["status"] for answer in (livez, readyz, health)] == [200, 503, 200]
    assert json.loads(readyz["body"]) == {
        "status": "unusable",
        "reason": "the database 'default': OperationalError",
    }


def test_metrics(location: str) -> None:
    found = visit(location, "metrics")
    text, openmetrics = found["text"], found["openmetrics"]
    assert (text["status"], openmetrics["status"], found["post"]) == (200, 200, 405)
    assert text["type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert openmetrics["type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    for line in (
        "celeriac_up 1.0",
        'celeriac_cache_hits_total{cache="django"} 1.0',
        'celeriac_queue_messages{queue="mail",state="ready"} 1.0',
    ):
        assert line in text["body"].splitlines()
        assert line in openmetrics["body"].splitlines()
    assert re.search(r'^orders_total\{kind="large"\} 3(\.0)?$', text["body"], re.MULTILINE)
    assert openmetrics["body"].endswith("# EOF\n")
    assert found["often"] == [200] * 5  # more than a guest may


def test_metrics_while_the_store_is_away(location: str) -> None:
    found = visit(location, "metrics", {"create": False})
    assert found["text"]["status"] == 200
    assert found["text"]["body"].splitlines()[-1] == "celeriac_up 0.0"
    assert found["openmetrics"]["body"].splitlines()[-2:] == ["celeriac_up 0.0", "# EOF"]


def test_health_without_a_store(location: str) -> None:
    found = visit(location, "no store")
    assert found["json"]["status"] == 503
    assert "this project has no store" in json.loads(found["json"]["body"])["reason"]


@pytest.mark.parametrize(("what", "error"), UNUSABLE[:2])
def test_the_page_while_the_store_is_unusable(
    location: str, what: str, error: str, request: pytest.FixtureRequest
) -> None:
    found = visit(location, "page", request.getfixturevalue(what))
    assert found["page"]["status"] == found["live"]["status"] == 503
    assert "The store can’t be used." in found["page"]["body"]
    assert f"{error}: " in found["page"]["body"]
    assert json.loads(found["live"]["body"])["reason"].startswith(f"{error}: ")
    assert found["post"]["status"] == 503
    assert f"It failed: {error}: " in found["post"]["body"]
    assert found["log"] == 0


def test_where_the_page_is(location: str) -> None:
    found = visit(location, "places")
    login = "/admin/login/?next=/admin/cache/stats"
    there = {"page": 200, "stranger": login, "below": 200, "index": True}
    assert found == {
        "before": there,
        "behind": there,
        "admin alone": there,
        "elsewhere": {**there, "stranger": login.replace("/admin/", "/manage/", 1)},
        "none": {"page": 404},
    }


def test_an_admin_of_ones_own(location: str) -> None:
    status, index = visit(location, "own admin")
    assert status == 200
    assert 'href="/own/cache/stats"' in index


def test_without_apps(location: str) -> None:
    found = visit(location, "without apps")
    assert (found["health"]["status"], found["readyz"], found["page"]) == (200, 200, 404)
