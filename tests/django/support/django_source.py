"""Django's own tests, which only its source distribution has.

The release that is installed decides which one. pip fetches it once (in an isolated build, because
pip must ask a source distribution for its metadata), and the tests are unpacked beside it.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import django


class Unavailable(Exception):
    """The source distribution can't be had; the text says why and what would help."""


def django_tests(directory: Path) -> Path:
    """The `tests` directory of the installed Django, kept below `directory` for later runs."""
    version = django.get_version()
    tests = directory / f"django-{version}" / "tests"
    if not (tests / "cache" / "tests.py").exists():
        _unpack(_download(version, directory), directory)
    if not (tests / "cache" / "tests.py").exists():
        raise Unavailable(f"the source distribution of Django {version} has no tests/cache")
    return tests


def _download(version: str, directory: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", "django", "--dest", str(directory), f"django=={version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"install a faster package index: {' '.join(command)} took more than 300 s"
        ) from None
    found = sorted(directory.glob(f"[Dd]jango-{version}.tar.gz"))
    if done.returncode or not found:
        raise Unavailable(
            "Django's own tests are in its source distribution only; install a package index "
            f"that has it, so that this works: {' '.join(command)}\n{done.stderr[-1000:]}"
        )
    return found[0]


def _unpack(archive: Path, directory: Path) -> None:
    with tarfile.open(archive) as source:
        root = source.next()
        if root is None:
            raise Unavailable(f"{archive} is empty")
        top = root.name.split("/")[0]
        wanted = [member for member in source if member.name.startswith(f"{top}/tests/")]
        if hasattr(tarfile, "data_filter"):  # CPython 3.10.12, 3.11.4 and later
            source.extraction_filter = tarfile.data_filter
        source.extractall(directory, wanted)
    unpacked = directory / top
    if top != archive.name.removesuffix(".tar.gz"):
        unpacked.rename(directory / archive.name.removesuffix(".tar.gz"))
