"""The whole demo: the database and the requests are made once, then each stack has its phase."""

from __future__ import annotations

import importlib.util
import platform
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from celeriac.errors import ConfigurationError

from . import interrupts, on_call, redis_server
from .options import DemoOptions
from .phase import PhaseResult, Progress, Stand, run_phase
from .plan import write_plan
from .services import ServiceGroup
from .shop import build_database
from .stacks import STACKS

NEEDED = ("django", "celery", "gunicorn")


@dataclass
class DemoResult:
    """What came out of a run.

    `skipped` has a reason for each stack that didn't take part; `on_call` is what `on_call.look`
    saw, None where celeriac's stack didn't take part.
    """

    options: DemoOptions
    plan_sha256: str
    phases: list[PhaseResult] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    on_call: dict[str, Any] | None = None
    seconds: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)


def run_demo(options: DemoOptions, progress: Progress) -> DemoResult:
    """Run every stack of `options`. All processes and files are gone when this returns or raises.

    Call it in the main thread. Raises `DemoError` when something is missing or a process fails,
    `Interrupted` after SIGINT, SIGTERM or SIGHUP.
    """
    check_requirements()
    began = time.monotonic()
    with (
        interrupts.noted(),
        tempfile.TemporaryDirectory(prefix="celeriac-demo-") as scratch,
        ServiceGroup() as services,
    ):
        directory = Path(scratch)
        services.guard(scratch)
        progress.step("drawing the requests")
        plan = directory / "plan.json"
        result = DemoResult(options, write_plan(plan, options), versions=_versions())
        progress.step("filling the database")
        template = build_database(services, directory, options)
        stand = Stand(services, directory, template, plan, options, progress)
        for name in options.stacks:
            reason = redis_server.unavailable() if name == "redis" else ""
            if reason:
                result.skipped[name] = reason
                continue
            stack = STACKS[name]
            progress.phase(stack.title)
            result.phases.append(run_phase(stand, stack))
        if "celeriac" in options.stacks:
            progress.phase("On call")
            result.on_call = on_call.look(stand)
    result.seconds = time.monotonic() - began
    return result


def check_requirements() -> None:
    """Raise ConfigurationError that names the packages that are missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        names = ", ".join(missing)
        raise ConfigurationError(f"the demo needs {names}: pip install 'celeriac[demo]'")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in (*NEEDED, "redis", "hiredis"):
        if importlib.util.find_spec(name) is not None:
            versions[name] = version(name)
    return versions
