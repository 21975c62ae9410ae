"""Puts the tests of `limits` on our storage: their conftest.py at the run.

Their own starts servers in containers. What they parametrize by storage is run with ours alone.
Nothing is run again, not even what they mark as flaky: it is given a clock of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import pytest

import celeriac
import celeriac.limits_storage

STORE = os.environ["CELERIAC_TEST_STORE"]  # "celeriac+shm://..."
OPTIONS = {"memory": "32M"}
MARKS = ["asyncio", "flaky", "integration", "memory", "memcached", "mongodb"]
MARKS += ["redis", "redis_cluster", "redis_sentinel", "valkey", "valkey_cluster"]

lazy = types.ModuleType("pytest_lazy_fixtures")
lazy.lf = lambda name: name  # type: ignore[attr-defined]  # of servers that aren't used
sys.modules["pytest_lazy_fixtures"] = lazy


def pytest_configure(config: pytest.Config) -> None:
    from tests import utils

    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    for name in ("all", "moving_window", "sliding_window_counter"):
        for prefix in ("", "async_"):
            ours = [(prefix.replace("_", "+") + STORE, OPTIONS, None)]
            mark = pytest.mark.parametrize(("uri", "args", "fixture"), ours)
            setattr(utils, f"{prefix}{name}_storage", mark)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Their list of storages, which stands in the mark itself, becomes ours."""
    for mark in metafunc.definition.iter_markers("parametrize"):
        if "expected_instance" in mark.args[0]:
            is_async = inspect.iscoroutinefunction(metafunc.function)
            kind = celeriac.limits_storage.CeleriacStorage
            if is_async:
                kind = celeriac.limits_storage.AsyncCeleriacStorage
            mark.args[1][:] = [(f"{'async+' * is_async}{STORE}", OPTIONS, kind, None)]


class Clock:
    """Time that passes where the test sleeps, and a microsecond wherever somebody looks: so that no
    machine is too slow for a test."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.began = {name: getattr(time, name)() for name in ("time", "monotonic")}

    def look(self, began: float) -> float:
        self.passed += 1e-6
        return began + self.passed

    def sleep(self, seconds: float) -> None:
        self.passed += seconds + 1e-5  # no sleep is too short

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)

    @contextmanager
    def instead(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, began in self.began.items():
                patch.setattr(time, name, partial(self.look, began))
            patch.setattr(time, "sleep", self.sleep)
            patch.setattr(asyncio, "sleep", self.sleep_async)
            yield


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    with celeriac.connect(STORE.removeprefix("celeriac+"), **OPTIONS) as store:
        store.table(celeriac.limits_storage.TABLE).clear()
    # Those of strategies never wait for an entry of the store to expire, which takes real time.
    strategy = "Window" in pyfuncitem.cls.__name__
    with Clock().instead() if strategy else nullcontext():
        result = pyfuncitem.obj(**arguments)
        if inspect.iscoroutine(result):
            asyncio.run(result)
    return True


def pytest_unconfigure(config: pytest.Config) -> None:
    celeriac.connect(STORE.removeprefix("celeriac+")).destroy(force=True)
