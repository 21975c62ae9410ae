"""The demo project's own tests, run as its owner would run them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from celeriac.demo.shop import PROJECT

pytest.importorskip("django", reason="the demo needs Django: pip install 'celeriac[demo]'")
pytest.importorskip("celery", reason="the demo needs Celery: pip install 'celeriac[demo]'")


def manage(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DEMO_STACK": "locmem", "PYTHONPATH": str(PROJECT)}
    return subprocess.run(
        [sys.executable, "-W", "error", str(PROJECT / "manage.py"), *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_project_tests_pass(tmp_path: Path) -> None:
    done = manage(tmp_path, "test", "shop")
    assert done.returncode == 0, done.stderr
    assert "Ran 11 tests" in done.stderr


def test_project_has_no_warnings_and_all_migrations(tmp_path: Path) -> None:
    for arguments in (("check",), ("makemigrations", "--check", "--dry-run")):
        done = manage(tmp_path, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
