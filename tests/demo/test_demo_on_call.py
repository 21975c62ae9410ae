"""What whoever is on call sees of the demo's shop, and the shop that keeps running for people."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from celeriac.cli import BAD_USAGE, main
from celeriac.demo import on_call
from celeriac.demo.report.goals import went_wrong
from celeriac.demo.report.table import on_call_table

for needed in ("django", "celery", "gunicorn"):
    pytest.importorskip(needed, reason="the demo's packages: pip install 'celeriac[demo]'")


def seen() -> dict[str, Any]:
    """What is seen when all is well."""
    return {
        "roles": [
            {"role": role, "limit": limit, "asked": limit + 10, "answered": limit, "refused": 10}
            | {"retry_after": "1"}
            for role, limit in on_call.LIMITS.items()
        ],
        "slow": {"x-request-id": "1", "x-request-time": "0.1", "x-sql-queries": "26"},
        "metrics": {"families": 30, "samples": 200, "succeeded": 20.0, "milliseconds": 3.0},
        "answers": dict.fromkeys(on_call.ANSWERS, 200),
        "admin": {"status": 200, "queues": ["celery"], "slow_request": True},
        "top": {"processes": 4, "operations_per_second": 1000.0, "memory": 1 << 20},
    }


def test_all_is_well() -> None:
    assert on_call.problems(seen()) == went_wrong([], seen()) == []
    heads, rows = on_call_table(seen())
    assert [len(row) for row in rows] == [len(heads)] * 10
    assert rows[0] == [
        "superadmin, 300/min",
        "310 asked, 300 answered, 10 refused: 429, Retry-After 1 s",
    ]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda found: found["roles"][0].update(refused=0), "superadmin: 300 answered, 0 refused"),
        (lambda found: found["roles"][1].update(answered=199), "owner: 199 answered"),
        (lambda found: found["roles"][4].update(retry_after=""), "guest: 50 answered, 10"),
        (lambda found: found["admin"].update(slow_request=False), "slow request isn't on"),
        (lambda found: found["metrics"].update(succeeded=19.0), "19 tasks of 20"),
        (lambda found: found["answers"].update({"/readyz": 503}), "/readyz said 503"),
        (lambda found: found["admin"].update(status=302), "admin page said 302"),
    ],
)
def test_what_is_amiss_is_said(change: Any, said: str) -> None:
    found = seen()
    change(found)
    (problem,) = went_wrong([], found)
    assert said in problem


@pytest.fixture
def directory() -> Iterator[Path]:
    stores = Path(tempfile.mkdtemp(prefix="celeriac-test-", dir="/dev/shm"))
    yield stores
    shutil.rmtree(stores)


def status_of(address: str) -> int:
    """What a visit is answered, wherever it leads."""
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.worker
def test_the_shop_keeps_running_until_an_interrupt(tmp_path: Path, directory: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "CELERIAC_SHM_DIR": str(directory)}
    with subprocess.Popen(
        [sys.executable, "-m", "celeriac.cli", "demo", "--serve", "--workers=1"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            told = dict(
                re.split(r"  +| (?=celeriac)", process.stdout.readline().strip(), maxsplit=1)
                for _ in range(6)
            )
            assert process.stdout.readline() == "until Ctrl-C\n"
            assert re.fullmatch(r"superadmin, password \S{12}", told["login"])
            assert {status_of(told[name]) for name in ("shop", "admin", "metrics", "health")} == {
                200
            }
            look = [sys.executable, "-m", *told["beside it"].split(), "--once", "--json"]
            done = subprocess.run(
                look, env=environment, capture_output=True, text=True, check=True, timeout=60
            )
            assert '"celery"' in done.stdout
            # Visitors come: somebody of them more often than a guest may.
            deadline = time.monotonic() + 60
            with urllib.request.urlopen(told["metrics"], timeout=60) as answer:
                text = answer.read().decode()
            while "celery_task_succeeded_total{" not in text:
                assert time.monotonic() < deadline, text
                time.sleep(0.2)
                with urllib.request.urlopen(told["metrics"], timeout=60) as answer:
                    text = answer.read().decode()
            process.send_signal(signal.SIGINT)
            output, error = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 128 + signal.SIGINT, output + error
    assert "Traceback" not in error
    assert list(directory.glob("celeriac-*/*")) == []
    assert [path for path in tmp_path.iterdir() if path.name.startswith("celeriac-demo-")] == []


def test_a_port_that_is_taken_or_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["demo", "--serve", f"--port={port}"]) == BAD_USAGE
    assert f"can't serve on port {port}: Address already in use" in capsys.readouterr().err
    for wrong in ("65536", "-1", "x"):
        with pytest.raises(SystemExit, match=f"^{BAD_USAGE}$"):
            main(["demo", "--serve", f"--port={wrong}"])
        assert "port" in capsys.readouterr().err
