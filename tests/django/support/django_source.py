"""Django's own tests, which only its source distribution has; the installed release's."""

from __future__ import annotations

from pathlib import Path

import django
import sdist


def django_tests(directory: Path) -> Path:
    """The `tests` directory of the installed Django, kept below `directory` for later runs."""
    version = django.get_version()
    source = directory / f"django-{version}"
    if not (source / "tests" / "cache" / "tests.py").exists():
        archive = sdist.download("django", version, directory)
        unpacked = sdist.unpack(archive, directory, lambda name: name.startswith("tests/"))
        if unpacked.name != source.name:
            unpacked.rename(source)
    if not (source / "tests" / "cache" / "tests.py").exists():
        raise sdist.Unavailable(f"the source distribution of Django {version} has no tests/cache")
    return source / "tests"
