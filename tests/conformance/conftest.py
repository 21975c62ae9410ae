"""Stores for the conformance suites: one behaviour, whatever engine serves it.

A test takes `store` (or `connect`, for a store of other options) and runs once for each engine in
`ENGINES`. An engine joins with one line there. What only an engine of limited memory can show asks
for `memory`, and is left out for engines that have none. A file:// store is the same engine in
another directory, whose queues have a journal: it runs the files in `ON_DISK`, and those of queues,
limits and locks.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import celeriac

# Helpers of these tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))

# Name of the engine -> URL of a store that is nobody else's.
ENGINES: dict[str, Callable[[], str]] = {
    "shm": lambda: f"shm://t-{secrets.token_hex(6)}",
    "file": lambda: f"file://{tempfile.gettempdir()}/celeriac-t-{secrets.token_hex(6)}",
}
LIMITED = {"shm", "file"}  # engines whose stores take memory=
ON_DISK = {"test_aio_locks", "test_cache", "test_concurrency", "test_models", "test_table"}
ALL_ON_DISK = ("test_limit", "test_lock", "test_queue")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" in metafunc.fixturenames:
        file = metafunc.module.__name__.rpartition(".")[2]
        here = file in ON_DISK or file.startswith(ALL_ON_DISK)
        names = [name for name in sorted(ENGINES) if name != "file" or here]
        metafunc.parametrize("engine", names, indirect=True)


def remove(store: celeriac.Store) -> None:
    """The store, and the directory that a file:// store leaves behind."""
    path = Path(store.path)
    store.destroy(force=True)
    if store.url.startswith("file://"):
        path.rmdir()


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The name of the engine."""
    return request.param


@pytest.fixture
def url(engine: str) -> Iterator[str]:
    """URL of a store that exists for one test."""
    url = ENGINES[engine]()
    yield url
    remove(celeriac.connect(url))


@pytest.fixture
def connect(url: str) -> Iterator[Callable[..., celeriac.Store]]:
    """Opens the test's store, with options; closed afterwards."""
    opened: list[celeriac.Store] = []

    def open_store(**options: Any) -> celeriac.Store:
        opened.append(celeriac.connect(url, **options))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(connect: Callable[..., celeriac.Store]) -> celeriac.Store:
    """A store of the engine's default options."""
    return connect()


@pytest.fixture
def memory(engine: str, connect: Callable[..., celeriac.Store]) -> Callable[[str], celeriac.Store]:
    """Opens the test's store with a ceiling of memory."""
    if engine not in LIMITED:
        pytest.skip(f"a {engine} store has no ceiling of its own")
    return lambda size: connect(memory=size)


@pytest.fixture
def fresh(engine: str) -> Iterator[Callable[[str], celeriac.Store]]:
    """Makes a store with a ceiling of memory, another at each call."""
    if engine not in LIMITED:
        pytest.skip(f"a {engine} store has no ceiling of its own")
    made: list[celeriac.Store] = []

    def make(size: str) -> celeriac.Store:
        made.append(celeriac.connect(ENGINES[engine](), memory=size))
        return made[-1]

    yield make
    for store in made:
        remove(store)


@pytest.fixture
def python(
    url: str, start_python: Callable[..., subprocess.Popen[str]]
) -> Callable[[str], subprocess.Popen[str]]:
    """Starts Python code in another process, with `store` open in it; ended after the test."""
    head = "import sys, time, celeriac\nstore = celeriac.connect(sys.argv[1])\n"
    return lambda code: start_python(head + code, url, stderr=None)


@pytest.fixture
def queue(store: celeriac.Store) -> celeriac.Queue:
    """A queue of the test's store."""
    return store.queue("q")
