"""The check for django-health-check."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("health_check", reason="no django-health-check: pip install '.[test]'")

SITE = Path(__file__).parent / "support" / "health_plugin_site.py"


def visit(location: str, **options: Any) -> Any:
    command = [sys.executable, str(SITE), location, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_is_fine(location: str) -> None:
    found = visit(location)
    assert [found[name]["status"] for name in ("all", "pages")] == [200, 200]
    assert list(found["all"]["told"].values()) == ["OK"]


def test_the_store_of_a_cache_is_unusable(location: str) -> None:
    found = visit(f"{location}", memroy="8M", IGNORE_EXCEPTIONS=True)
    assert found["all"]["status"] == 200
    assert found["pages"]["status"] >= 500
    (told,) = found["pages"]["told"].values()
    assert told.startswith("Unavailable: ConfigurationError: ")
    assert "memroy" in told
