"""The tests of this folder read the source tree, not the installed package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Helpers of these tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))

TOOLS_LEAVE = {"__pycache__", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"}


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the source tree."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def project_files(root: Path) -> list[Path]:
    """What git tracks, or would track; all files where the tree isn't a git checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
        found = [root / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in root.rglob("*") if not TOOLS_LEAVE & set(path.parts)]
    files = sorted(path for path in found if path.is_file())
    assert len(files) > 50, "that isn't the source tree"
    return files
