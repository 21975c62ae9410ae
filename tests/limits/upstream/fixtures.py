"""Puts the tests of `limits` on our storage: their conftest.py at the run.

Their own starts servers in containers. What they parametrize by storage is run with ours alone, and
what they mark as flaky is tried as often as they say, which is all that is ever run again.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
import types
from typing import Any

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


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool:
    mark = pyfuncitem.get_closest_marker("flaky")
    runs = 1 if mark is None else mark.kwargs.get("max_runs", 2)
    wanted = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in wanted}
    for left in reversed(range(runs)):
        with celeriac.connect(STORE.removeprefix("celeriac+"), **OPTIONS) as store:
            store.table(celeriac.limits_storage.TABLE).clear()
        try:
            run(pyfuncitem.obj, arguments)
        except AssertionError:
            if left == 0:
                raise
        else:
            break
    return True


def run(function: Any, arguments: dict[str, Any]) -> None:
    result = function(**arguments)
    if inspect.iscoroutine(result):
        asyncio.run(result)


def pytest_unconfigure(config: pytest.Config) -> None:
    celeriac.connect(STORE.removeprefix("celeriac+")).destroy(force=True)
