"""The tests of django-redis, which only its source distribution has; fetched once by pip."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

VERSION = "7.0.0"


class Unavailable(Exception):
    """The source distribution can't be had; the text says why and what would help."""


def django_redis(directory: Path) -> Path:
    """The unpacked source of django-redis, kept below `directory` for later runs."""
    source = directory / f"django_redis-{VERSION}"
    if not (source / "tests" / "test_backend.py").exists():
        _unpack(_download(directory), directory)
    if not (source / "tests" / "test_backend.py").exists():
        raise Unavailable(f"the source distribution of django-redis {VERSION} has no tests")
    return source


def _download(directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", "django-redis", "--dest", str(directory), f"django-redis=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"install a faster package index: {' '.join(command)} took more than 300 s"
        ) from None
    found = sorted(directory.glob(f"django[_-]redis-{VERSION}.tar.gz"))
    if done.returncode or not found:
        raise Unavailable(
            "the tests of django-redis are in its source distribution only; install a package "
            f"index that has it, so that this works: {' '.join(command)}\n{done.stderr[-1000:]}"
        )
    return found[0]


def _unpack(archive: Path, directory: Path) -> None:
    with tarfile.open(archive) as source:
        if hasattr(tarfile, "data_filter"):  # CPython 3.10.12, 3.11.4 and later
            source.extraction_filter = tarfile.data_filter
        source.extractall(directory)


def lay_out(source: Path, ours: Path, directory: Path) -> None:
    """A directory in which pytest runs their tests with our conftest and settings."""
    tests = directory / "tests"
    shutil.copytree(source / "django_redis", directory / "django_redis")
    tests.mkdir()
    (tests / "__init__.py").touch()
    for name in ("test_backend", "test_session", "test_cache_options", "settings_wrapper"):
        shutil.copy(source / "tests" / f"{name}.py", tests)
    shutil.copy(ours / "fixtures.py", tests / "conftest.py")
    shutil.copy(ours / "shim.py", tests)
