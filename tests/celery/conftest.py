"""Fixtures for the Celery tests: a store of one's own, and connections to it."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kombu
import pytest

import celeriac
import celeriac.celery  # registers the transport for bare kombu

#: Kind of store that these tests use: "shm", or "file" by CELERIAC_TEST_STORE.
STORE = os.environ.get("CELERIAC_TEST_STORE", "shm")

# Helpers of these tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "worker: starts real processes")


@pytest.fixture
def store_url() -> Iterator[str]:
    """URL of a store that exists for one test."""
    yield from _store(STORE)


def _store(kind: str) -> Iterator[str]:
    name = f"t-{uuid.uuid4().hex[:12]}"
    place = f"file://{tempfile.gettempdir()}/celeriac-{name}" if kind == "file" else f"shm://{name}"
    url = f"{place}?memory=64M"
    yield url
    store = celeriac.connect(url)
    path = Path(store.path)
    store.destroy(force=True)
    if kind == "file":
        path.rmdir()


@pytest.fixture(params=["shm", "file"])
def both_stores(request: pytest.FixtureRequest) -> Iterator[str]:
    """As `store_url`, of each kind of store."""
    yield from _store(request.param)


@pytest.fixture
def connect(store_url: str) -> Iterator[Callable[..., kombu.Connection]]:
    """Makes kombu connections to the test's store and closes them."""
    opened: list[kombu.Connection] = []

    def make(**options: object) -> kombu.Connection:
        opened.append(kombu.Connection(f"celeriac+{store_url}", transport_options=options))
        return opened[-1]

    yield make
    for connection in opened:
        connection.release()


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Celery sets that of the root logger for a worker in this process, and leaves it so."""
    before = logging.root.level
    yield
    logging.root.setLevel(before)


@pytest.fixture
def connection(connect: Callable[..., kombu.Connection]) -> kombu.Connection:
    """A kombu connection to the test's store."""
    return connect()


@pytest.fixture
def celery(store_url: str, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts ``celery ARGUMENTS`` on the test's store; all of it is gone after the test."""
    from processes import CeleryProcess

    started: list[CeleryProcess] = []

    def start(name: str, *arguments: str, **env: str) -> CeleryProcess:
        started.append(CeleryProcess(store_url, tmp_path, name, *arguments, **env))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture
def worker(celery: Callable[..., Any]) -> Callable[..., Any]:
    """Starts a worker and waits until it is ready."""

    def start(name: str = "w1", *arguments: str, pool: str = "prefork", **env: str) -> Any:
        options = ["--pool", pool, "--hostname", f"{name}@test", "--loglevel", "INFO"]
        concurrency = [] if pool == "solo" else ["--concurrency", "2"]
        process = celery(name, "worker", *options, *concurrency, *arguments, **env)
        process.wait_for(f"{name}@test ready.")
        return process

    return start


@pytest.fixture
def app(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The application of the workers, on this side of the broker."""
    monkeypatch.setenv("CELERIAC_TEST_URL", store_url)
    sys.modules.pop("worker_app", None)
    import worker_app

    yield worker_app.app
    worker_app.app.close()
    sys.modules.pop("worker_app", None)
