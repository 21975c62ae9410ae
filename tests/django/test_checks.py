"""What `manage.py check` says of a project, and what it doesn't."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MANAGE = Path(__file__).parent / "support" / "manage_site.py"
STATS = "celeriac.django.middleware.RequestStatsMiddleware"
LIMITS = "celeriac.django.middleware.RateLimitMiddleware"
RATES = {"RATE_LIMITS": {"guest": "50/min"}}


def check(
    location: str, *arguments: str, options: Any = None, **settings: Any
) -> list[tuple[str, str]]:
    """What was found, as id and text; checks of others don't count."""
    given = json.dumps({**(options or {}), "settings": settings})
    command = [sys.executable, str(MANAGE), location, given, "check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert (done.returncode != 0) == ("celeriac.E" in done.stderr), done.stderr
    return re.findall(r"\((celeriac\.\w+)\) (.*)", done.stderr)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"MIDDLEWARE": [STATS]},
        {"MIDDLEWARE": [STATS, LIMITS], "CELERIAC": RATES},
        {"MIDDLEWARE": [LIMITS], "CELERIAC": RATES},
        {"MIDDLEWARE": ["no.such.Middleware"]},
    ],
)
def test_nothing_is_wrong(location: str, settings: dict[str, Any]) -> None:
    assert check(location, options={"create": False}, **settings) == []


@pytest.mark.parametrize(
    ("settings", "id", "said"),
    [
        ({"CELERIAC": {"SLOW": 1}}, "E001", "unknown name 'SLOW' in CELERIAC"),
        ({"CELERIAC": {"RATE_LIMITS": {"guest": "5/fortnight"}}}, "E001", "no unit of time"),
        ({"MIDDLEWARE": [LIMITS, STATS], "CELERIAC": RATES}, "W001", "stands before"),
        ({"MIDDLEWARE": [STATS], "CELERIAC": RATES}, "W002", "has no RateLimitMiddleware"),
        ({"MIDDLEWARE": [LIMITS]}, "W003", "has no RATE_LIMITS"),
    ],
)
def test_settings(location: str, settings: dict[str, Any], id: str, said: str) -> None:
    ((found, text),) = check(location, **settings)
    assert found == f"celeriac.{id}"
    assert said in text


def test_before_a_deployment(location: str, tmp_path: Path) -> None:
    assert check(location, "--deploy", CACHES={}) == []
    files = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache"}
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    dummy = {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}
    others = {"files": {**files, "LOCATION": str(tmp_path)}, "local": local, "dummy": dummy}
    found = check(location, "--deploy", CACHES=others)
    assert [id for id, _ in found] == ["celeriac.W004"] * 2
    assert "The cache 'files' is a FileBasedCache" in found[0][1]
    assert "The cache 'local' is a LocMemCache, which lives in each process alone" in found[1][1]
    assert check(location, CACHES=others) == []


def test_a_store_that_is_away(location: str) -> None:
    ((id, said),) = check(location, "--deploy", options={"create": False}, CACHES={})
    assert id == "celeriac.W006"
    assert "StoreNotFound: " in said


def test_more_memory_than_there_is(location: str) -> None:
    found = check(location, "--deploy", options={"memory": "512T"}, CACHES={})
    assert found[0][0] == "celeriac.W005"
    assert "may grow to 524,288.0 GiB" in found[0][1]
