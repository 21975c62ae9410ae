"""Fixtures for the tests of prometheus_client's metrics in a store."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import celeriac

# Helpers of these tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))


@pytest.fixture(scope="session")
def prometheus_tests(request: pytest.FixtureRequest) -> Path:
    """The `tests` directory of the installed prometheus_client's source distribution."""
    from importlib.metadata import version

    import sdist

    package = f"prometheus_client-{version('prometheus_client')}"
    directory = request.config.cache.mkdir("prometheus-source")
    source: Path = directory / package
    try:
        if not (source / "tests" / "test_core.py").exists():
            archive = sdist.download("prometheus_client", package.partition("-")[2], directory)
            sdist.unpack(archive, directory, lambda name: name.startswith("tests/"))
    except sdist.Unavailable as error:
        pytest.skip(str(error))
    return source / "tests"


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    """A store that nobody else uses; removed after the test."""
    url = f"shm://t-{secrets.token_hex(8)}"
    with celeriac.connect(url) as opened:
        yield opened
    celeriac.connect(url).destroy(force=True)
