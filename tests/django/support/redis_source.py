"""The tests of django-redis, which only its source distribution has; fetched once by pip."""

from __future__ import annotations

import shutil
from pathlib import Path

import sdist

VERSION = "7.0.0"


def django_redis(directory: Path) -> Path:
    """The unpacked source of django-redis, kept below `directory` for later runs."""
    source = directory / f"django_redis-{VERSION}"
    if not (source / "tests" / "test_backend.py").exists():
        sdist.unpack(sdist.download("django-redis", VERSION, directory), directory)
    if not (source / "tests" / "test_backend.py").exists():
        raise sdist.Unavailable(f"the source distribution of django-redis {VERSION} has no tests")
    return source


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
