"""A pytest plugin: prometheus_client's own tests, with celeriac.prometheus.install() active.

CELERIAC_STORE is the store's URL; what became of each test is written to CELERIAC_RESULT, as JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import prometheus_client

import celeriac.prometheus

celeriac.prometheus.install(os.environ["CELERIAC_STORE"])

# Each test makes a registry, with metrics of the same names. They stay, so that no test's metrics
# are taken for those of a program that makes them as it goes: such ones aren't put into the store.
_kept: list[Any] = []
_init = prometheus_client.CollectorRegistry.__init__


def _keep(registry: Any, *args: Any, **kwargs: Any) -> None:
    _init(registry, *args, **kwargs)
    _kept.append((registry, registry._collector_to_names))


prometheus_client.CollectorRegistry.__init__ = _keep  # type: ignore[method-assign]
_register = prometheus_client.CollectorRegistry.register
_outcomes: dict[str, tuple[str, str]] = {}
_adopted = 0


def _keep_metric(registry: Any, collector: Any) -> None:
    global _adopted
    _register(registry, collector)
    _kept.append(collector)
    _adopted += "_celeriac" in vars(collector)


prometheus_client.CollectorRegistry.register = _keep_metric  # type: ignore[method-assign]


def pytest_runtest_logreport(report: Any) -> None:
    """Note it; a failure in any phase stays one."""
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.partition("::")[2]
        if _outcomes.get(name, ("",))[0] != "failed":
            _outcomes[name] = (report.outcome, str(report.longrepr or ""))


def pytest_sessionfinish() -> None:
    """Write it down."""
    said = {"outcomes": _outcomes, "adopted": _adopted}
    Path(os.environ["CELERIAC_RESULT"]).write_text(json.dumps(said), encoding="utf-8")
