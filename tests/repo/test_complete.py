"""`CELERIAC_COMPLETE=1` leaves no skip unseen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_good():
    pass

def test_server():
    pytest.skip({reason!r})
"""


@pytest.mark.parametrize(
    ("reason", "complete", "status"),
    [
        ("no redis-server: apt install redis-server", "1", 1),
        ("no redis-server: apt install redis-server", "0", 0),
        ("no crash points: build with CELERIAC_CRASH_POINTS=ON", "1", 0),
    ],
)
def test_skip(root: Path, tmp_path: Path, reason: str, complete: str, status: int) -> None:
    (tmp_path / "conftest.py").write_text((root / "tests" / "conftest.py").read_text())
    (tmp_path / "test_it.py").write_text(TESTS.format(reason=reason))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", tmp_path, "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "CELERIAC_COMPLETE": complete},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == status, done.stdout
    assert (f"test_it.py::test_server: {reason}" in done.stdout) == bool(status)
    assert "1 passed, 1 skipped" in done.stdout
