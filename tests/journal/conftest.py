"""Stores with a journal, in directories of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import celeriac

sys.path.insert(0, str(Path(__file__).parent))  # reader.py


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def url(path: Path) -> Iterator[str]:
    url = f"file://{path}"
    yield url
    if (path / "arena").exists():
        celeriac.connect(url).destroy(force=True)


@pytest.fixture
def killed(url: str) -> Callable[[str], str]:
    """Runs code with `store` in another process, which kills itself at the end; its output."""

    def run(code: str, durability: str = "process") -> str:
        head = (
            "import celeriac, os, signal, sys\n"
            f"store = celeriac.connect(sys.argv[1], durability={durability!r})\n"
        )
        tail = "\nsys.stdout.flush()\nos.kill(os.getpid(), signal.SIGKILL)\n"
        done = subprocess.run(
            [sys.executable, "-c", head + code + tail, url],
            capture_output=True,
            text=True,
            env=os.environ,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        return done.stdout

    return run
