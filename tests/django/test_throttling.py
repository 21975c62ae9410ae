"""Django REST framework's throttles on a store."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SITE = Path(__file__).parent / "support" / "rest_site.py"


def visit(location: str) -> Any:
    command = [sys.executable, str(SITE), location]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_throttles(location: str) -> None:
    pytest.importorskip("rest_framework", reason="pip install '.[test]'")
    found = visit(location)
    assert [status for status, _ in found["anonymous"]] == [200, 200, 429]
    assert 25 <= int(found["anonymous"][2][1]) <= 30
    assert found["another"] == [[200, None]]
    assert [status for status, _ in found["users"]] == [200, 200, 200, 429]
    assert [status for status, _ in found["uploads"]] == [200, 429]
    assert 3590 <= int(found["uploads"][1][1]) <= 3600
    assert found["free"] == [[200, None]] * 3
    again = visit(location)  # another process of the site
    assert [status for status, _ in again["anonymous"]] == [429] * 3
    assert [status for status, _ in again["uploads"]] == [429] * 2


def test_while_the_store_is_away() -> None:
    pytest.importorskip("rest_framework", reason="pip install '.[test]'")
    found = visit(f"shm://closed-{secrets.token_hex(6)}")
    assert found["anonymous"] == [[200, None]] * 3
    assert found["denied"] == [[429, "1"]]
