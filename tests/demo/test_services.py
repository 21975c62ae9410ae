"""That processes of the demo are gone when it ends, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from celeriac.demo.errors import DemoError
from celeriac.demo.services import HERE, ISOLATED, ServiceGroup

pytestmark = pytest.mark.worker

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import signal, time;"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"],
    stdout=subprocess.PIPE)
child.stdout.readline()
print("ready", os.getpid(), child.pid, flush=True)
time.sleep(600)
"""

DEMO = """
import sys, time
from pathlib import Path
from celeriac.demo.services import ServiceGroup
directory = Path(sys.argv[1])
group = ServiceGroup()
(directory / "scratch").mkdir()
group.guard(str(directory / "scratch"))
group.start("stubborn", [sys.executable, "-c", sys.argv[2]], directory, {})
time.sleep(600)
"""


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat[stat.rindex(")") + 2] not in "ZX"


def pids_of(log: Path) -> list[int]:
    """Wait until the stubborn program is up; its own pid and its child's."""
    wait_for(lambda: log.exists() and log.read_text().startswith("ready"))
    return [int(word) for word in log.read_text().split()[1:3]]


def test_group_with_stubborn_children_is_stopped(tmp_path: Path) -> None:
    with ServiceGroup() as group:
        service = group.start("stubborn", [sys.executable, "-c", STUBBORN], tmp_path, {})
        pids = pids_of(service.log)
        assert sorted(service.processes()) == sorted(pids)
        group.stop(service, seconds=0.3)
        assert not any(map(alive, pids))
        assert group.services == []


def test_all_services_are_stopped_after_an_error(tmp_path: Path) -> None:
    group = ServiceGroup()
    service = group.start("sleep", ["sleep", "600"], tmp_path, {})

    def fail() -> None:
        with group:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not alive(service.group)


def test_killed_demo_leaves_nothing(tmp_path: Path) -> None:
    demo = subprocess.Popen([sys.executable, "-c", DEMO, str(tmp_path), STUBBORN])
    try:
        pids = pids_of(tmp_path / "stubborn.log")
        assert (tmp_path / "scratch").is_dir()
        demo.send_signal(signal.SIGKILL)
        demo.wait()
        wait_for(lambda: not any(map(alive, pids)) and not (tmp_path / "scratch").exists())
    finally:
        demo.kill()
        demo.wait()


def test_kernel_kills_a_service_whose_demo_died(tmp_path: Path) -> None:
    launch = [*ISOLATED, str(HERE / "launch.py")]
    starter = (
        "import os, subprocess, sys, time;"
        "p = subprocess.Popen([*sys.argv[1:], str(os.getpid()), 'sleep', '600']);"
        "print(p.pid, flush=True); time.sleep(600)"
    )
    demo = subprocess.Popen(
        [sys.executable, "-c", starter, *launch], stdout=subprocess.PIPE, text=True
    )
    try:
        assert demo.stdout
        pid = int(demo.stdout.readline())
        wait_for(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n")
        demo.kill()
        wait_for(lambda: not alive(pid))
    finally:
        demo.kill()
        demo.communicate()


def test_service_that_fails_tells_the_end_of_its_log(tmp_path: Path) -> None:
    with ServiceGroup() as group:
        service = group.start("broken", ["sh", "-c", "echo no such thing; exit 3"], tmp_path, {})
        with pytest.raises(DemoError, match=r"(?s)broken ended with code 3.*no such thing"):
            service.wait_until(lambda: False, 20)


def test_service_that_does_not_get_ready(tmp_path: Path) -> None:
    with ServiceGroup() as group:
        service = group.start("slow", ["sleep", "600"], tmp_path, {})
        with pytest.raises(DemoError, match="slow wasn't ready"):
            service.wait_until(lambda: False, 0.1)


def test_services_are_in_sessions_of_their_own(tmp_path: Path) -> None:
    with ServiceGroup() as group:
        service = group.start("sleep", ["sleep", "600"], tmp_path, {})
        assert os.getsid(service.group) == service.group != os.getsid(0)
