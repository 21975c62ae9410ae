"""Stores and processes for the tests of several processes."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest

import celeriac

# Helpers of these tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))


@pytest.fixture
def url() -> Iterator[str]:
    """URL of a store that exists for one test."""
    url = f"shm://t-{secrets.token_hex(6)}"
    yield url
    celeriac.connect(url).destroy(force=True)


@pytest.fixture
def store(url: str) -> Iterator[celeriac.Store]:
    """That store, open."""
    with celeriac.connect(url) as store:
        yield store


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def context(request: pytest.FixtureRequest) -> BaseContext:
    """Each way in which Python starts a child."""
    return multiprocessing.get_context(request.param)


@pytest.fixture
def child() -> Iterator[Callable[..., Any]]:
    """Starts children of any context; none is left after the test."""
    started: list[Any] = []

    def start(context: Any, target: Callable[..., object], *arguments: object) -> Any:
        started.append(context.Process(target=target, args=arguments))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def fork() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Forks; the child runs a function and ends at once: 0 when it returned, 1 when it raised."""
    children: list[int] = []

    def start(run: Callable[[], object]) -> int:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                run()
                status = 0
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(status)
        children.append(pid)
        return pid

    yield start
    for pid in children:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


@pytest.fixture
def python(
    url: str, start_python: Callable[..., subprocess.Popen[str]]
) -> Callable[..., subprocess.Popen[str]]:
    """Starts Python code in another process, with `store` open in it; ended after the test."""
    head = "import os, sys, threading, time, celeriac\nstore = celeriac.connect(sys.argv[1])\n"
    return lambda code, *arguments: start_python(head + code, url, *arguments)
