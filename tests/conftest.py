"""What holds for all tests: nothing that could have been tested is left out unseen, and none fails
for the speed of the machine.

A test whose server or tool isn't there skips with a reason that says what to install. Where
everything is known to be there, `CELERIAC_COMPLETE=1` turns every skip into a failed run, but for
those that need another build of the extension and name its CMake option or say "sanitizer": the
gate has a step of its own for each build.

And what the tests of several folders use.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

# Helpers of all tests; pytest's importlib mode leaves sys.path alone.
sys.path.insert(0, str(Path(__file__).parent / "support"))

with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # By default an example fails after 200 ms: a busy machine does that to any.
    settings.register_profile(
        "celeriac", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("celeriac")

# A shell that starts the tests in the background has SIGINT ignored, which children would inherit.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ANOTHER_BUILD = re.compile(r"CELERIAC_[A-Z_]+|sanitizer", re.IGNORECASE)

_left_out: list[str] = []


def _note(report: pytest.CollectReport | pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")
        if not ANOTHER_BUILD.search(reason):
            _left_out.append(f"{report.nodeid}: {reason}")


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note(report)


def _incomplete() -> bool:
    return bool(_left_out) and os.environ.get("CELERIAC_COMPLETE", "0") not in ("", "0")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _incomplete() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _incomplete():
        terminalreporter.section("skipped, though CELERIAC_COMPLETE says that nothing is missing")
        for line in _left_out:
            terminalreporter.write_line(line)


@pytest.fixture
def start_python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python code in another process, with pipes to it; killed after the test.

    A fixture that uses this one names it last: what it needs goes after the processes then."""
    started: list[subprocess.Popen[str]] = []

    def start(
        code: str,
        *arguments: str,
        wrapper: tuple[str, ...] = (),
        stderr: int | None = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [*wrapper, sys.executable, "-c", code, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()
