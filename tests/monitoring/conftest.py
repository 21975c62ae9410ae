"""Fixtures for the tests of `celeriac monitoring`, its pack and what it serves."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import celeriac
from celeriac.monitoring import Options, write

# Helpers of these tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))

PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "nginx": "nginx-light",
    "systemd-analyze": "systemd",
}


@pytest.fixture(scope="session")
def tool() -> Callable[..., str]:
    """Runs one of the tools and gives what it says; fails with that unless it succeeds."""

    def run(name: str, *arguments: str | Path, expect: int = 0) -> str:
        command = [find(name), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def find(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"no {name}: apt install {PACKAGES[name]}")
    return found


@pytest.fixture(scope="session")
def find_tool() -> Callable[[str], str]:
    """The path of one of the tools; skips where it isn't."""
    return find


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pack as it is written by default, with mixins."""
    directory = tmp_path_factory.mktemp("pack")
    assert not write(directory, Options(mixins=True)).left
    return directory


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    """A store that nobody else uses; removed after the test."""
    url = f"shm://t-{secrets.token_hex(8)}"
    with celeriac.connect(url) as opened:
        yield opened
    celeriac.connect(url).destroy(force=True)
