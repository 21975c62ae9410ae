"""The whole demo, short, and what it leaves behind: nothing but its reports."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.worker

for needed in ("django", "celery", "gunicorn"):
    pytest.importorskip(needed, reason="the demo's packages: pip install 'celeriac[demo]'")

MARK = "CELERIAC_DEMO_TEST"


class Run:
    """A demo in a directory of its own, and the traces that it may leave on the machine.

    Every process of the demo inherits the mark, so those that stay can be found. Temporary files
    go to a directory that is empty before and must be empty afterwards, and stores to one of their
    own, since another demo may run on this machine or have been killed with its watchdog.
    """

    def __init__(self, directory: Path, stores: Path) -> None:
        self.directory = directory
        self.directory_of_stores = stores
        self.mark = secrets.token_hex(8)
        self.temporary = directory / "temporary"
        self.temporary.mkdir()
        self.process: subprocess.Popen[str] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celeriac.cli", "demo", *arguments],
            cwd=self.directory,
            env={
                **os.environ,
                MARK: self.mark,
                "TMPDIR": str(self.temporary),
                "CELERIAC_SHM_DIR": str(self.directory_of_stores),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def processes(self) -> list[str]:
        """The commands of all living processes with the mark."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and self.mark.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def wait_for_load(self) -> None:
        """Wait until the load of the first phase has begun."""
        assert self.process is not None
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("  load"):
                return
        raise AssertionError("the demo ended without a load")

    def wait_for_import(self) -> None:
        """Wait until the demo's process has loaded celeriac's extension."""
        assert self.process is not None
        maps = Path(f"/proc/{self.process.pid}/maps")
        while "/celeriac/_core." not in maps.read_text():
            assert self.process.poll() is None, "the demo ended before its imports"
            time.sleep(0.001)

    def leaves_nothing(self) -> None:
        """Fail if a process, a temporary file or a store is left."""
        deadline = time.monotonic() + 10
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert self.processes() == []
        while list(self.temporary.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(self.temporary.iterdir()) == []
        assert self.stores() == []

    def stores(self) -> list[str]:
        """The stores that the demo has made and not removed."""
        return [path.name for path in self.directory_of_stores.glob("celeriac-*/*")]


def retries_of_events(events: int) -> int:
    """How many attempts fail in the tasks of the events 1 to `events`, as the shop's tasks say."""
    retries = 0
    for event in range(1, events + 1):
        tasks = 3 if event % 25 == 0 else 2
        retries += tasks * (2 if event % 50 == 0 else 1 if event % 10 == 0 else 0)
    return retries


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Run]:
    stores = Path(tempfile.mkdtemp(prefix="celeriac-test-", dir="/dev/shm"))
    run = Run(tmp_path, stores)
    yield run
    if run.process:
        run.process.kill()
        run.process.communicate()
    shutil.rmtree(stores)


@pytest.mark.slow
def test_short_run(demo: Run) -> None:
    keys = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    trace = demo.directory / "keys.trace"
    trace.write_bytes(struct.pack(f">{len(keys)}i", *keys))
    arguments = ["--seconds=3", "--workers=2", f"--trace={trace}", "--json=numbers.json"]
    process = demo.start(*arguments, "--stacks=locmem,celeriac")
    output, progress = process.communicate(timeout=180)
    assert process.returncode == 0, output + progress
    demo.leaves_nothing()

    summary = json.loads((demo.directory / "demo-report.json").read_text())
    assert summary == json.loads((demo.directory / "numbers.json").read_text())
    assert "<svg" in (demo.directory / "demo-report.html").read_text()
    assert [phase["stack"] for phase in summary["phases"]] == ["locmem", "celeriac"]
    for phase in summary["phases"]:
        assert phase["failed"] == 0
        assert phase["requests"] > 100
        assert phase["tasks"]["sent"] == phase["tasks"]["done"] > 10
        assert phase["tasks"]["lost"] == 0
        assert phase["tasks"]["retried"] == retries_of_events(phase["tasks"]["by_kind"]["webhook"])
        assert phase["latency_ms"]["product"]["count"] > phase["requests"] / 2
    locmem, ours = summary["phases"]
    assert ours["hit_ratio_same"] > locmem["hit_ratio_same"]
    assert ours["queue_wait_ms"]["count"] > 0
    assert ours["memory"]["backend"] > 0
    assert "hit ratio over all workers" in output
    assert [role["answered"] >= role["limit"] for role in summary["on_call"]["roles"]] == [True] * 5
    assert summary["on_call"]["slow"]["x-sql-queries"] == "26"
    assert "guest, 50/min" in output
    assert "guest, 50/min" in (demo.directory / "demo-report.html").read_text()
    assert "celeriac" in output.splitlines()[0]


def test_no_report(demo: Run) -> None:
    process = demo.start("--seconds=0.5", "--workers=1", "--stacks=locmem", "--no-report")
    output, progress = process.communicate(timeout=120)
    assert process.returncode == 0, output + progress
    assert [path.name for path in demo.directory.iterdir()] == ["temporary"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle(demo: Run, number: signal.Signals) -> None:
    process = demo.start("--seconds=12", "--stacks=celeriac")
    demo.wait_for_load()
    names = " ".join(demo.processes())
    assert all(name in names for name in ("gunicorn", "worker", "beat", "celeriac.demo.load"))
    assert len(demo.stores()) == 1
    process.send_signal(number)
    output, progress = process.communicate(timeout=60)
    assert process.returncode == 128 + number, output + progress
    assert "interrupted" in progress
    assert "Traceback" not in progress
    demo.leaves_nothing()
    assert not (demo.directory / "demo-report.json").exists()


def test_killed_in_the_middle(demo: Run) -> None:
    process = demo.start("--seconds=12", "--stacks=celeriac")
    demo.wait_for_load()
    process.kill()
    process.wait()
    demo.leaves_nothing()


@pytest.mark.slow
def test_interrupted_at_any_moment(demo: Run) -> None:
    """Ctrl-C after a while that differs each time, from the first imports to the load.

    Before celeriac is imported what happens is Python's affair: it may end with code 1. And Python
    drops a Ctrl-C that comes while it runs a callback, so it is pressed again after a while.
    """
    for seconds in (0.05, 0.2, 1.0, 2.5, 4.0):
        process = demo.start("--seconds=60", "--workers=2", "--stacks=celeriac")
        demo.wait_for_import()
        time.sleep(seconds)
        for patience in (10, 50):
            process.send_signal(signal.SIGINT)
            try:
                process.communicate(timeout=patience)
                break
            except subprocess.TimeoutExpired:
                continue
        assert process.returncode in (128 + signal.SIGINT, -signal.SIGINT)
        demo.leaves_nothing()


def test_failing_service_ends_the_demo(demo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(demo.directory))
    (demo.directory / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'celery' in sys.orig_argv:\n"
        "    print('the kitchen is closed', flush=True)\n"
        "    os._exit(3)\n"
    )
    process = demo.start("--seconds=12", "--stacks=celeriac")
    output, progress = process.communicate(timeout=120)
    assert process.returncode == 1, output + progress
    assert "worker ended with code 3" in progress
    assert "the kitchen is closed" in progress
    assert "Traceback" not in progress
    demo.leaves_nothing()
