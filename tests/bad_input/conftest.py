"""A directory of one's own for stores, so that tests can do to it what they want."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import celeriac

# Helpers of these tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What stands in for /dev/shm, in /dev/shm."""
    path = Path(tempfile.mkdtemp(prefix="celeriac-test-", dir="/dev/shm"))
    monkeypatch.setenv("CELERIAC_SHM_DIR", str(path))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def ours(root: Path) -> Path:
    """The directory of this user's stores, once there is one."""
    return root / f"celeriac-{os.geteuid()}"


@pytest.fixture
def closed(ours: Path) -> Path:
    """The directory of a store named `app` that has one entry and is open nowhere."""
    with celeriac.connect("shm://app?memory=8M") as store:
        store.cache().set("k", "v", None)
    return ours / "app"


@pytest.fixture
def unchanged(root: Path) -> Callable[[], object]:
    """Called first, returns what is there; called again after an error, it should be the same."""

    def look() -> object:
        return sorted(_entry(root, Path(where) / n) for where, d, f in os.walk(root) for n in d + f)

    return look


def _entry(root: Path, path: Path) -> tuple[object, ...]:
    info = path.lstat()
    content = ""
    if stat.S_ISREG(info.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    elif stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)
    return (str(path.relative_to(root)), info.st_ino, info.st_mode, info.st_uid, content)


@pytest.fixture
def python(
    root: Path, start_python: Callable[..., subprocess.Popen[str]]
) -> Callable[..., subprocess.Popen[str]]:
    """Starts Python code in another process; ended after the test."""
    head = "import os, sys, celeriac\n"
    return lambda code, *arguments, **options: start_python(head + code, *arguments, **options)


@pytest.fixture
def needs_root() -> None:
    """For what only root can set up."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files to another user: run the tests as root too")
