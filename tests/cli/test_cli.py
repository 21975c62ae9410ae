"""The command line: help, exit codes, and messages instead of tracebacks."""

from __future__ import annotations

import importlib.util
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import celeriac
from celeriac.cli import BAD_USAGE, FINDING, FINE, doctor, main
from celeriac.cli.tables import plain_table


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    store = celeriac.connect(f"shm://t-{secrets.token_hex(6)}?memory=16M")
    yield store
    store.destroy(force=True)


def run(*arguments: str) -> int:
    """The exit code, argparse's own included."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(str(end.code))


@pytest.mark.parametrize("command", [[], ["demo"], ["stats"], ["doctor"], ["resize"]])
def test_help(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*command, "--help") == FINE
    assert "usage: celeriac" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["stats"],
        ["stats", "nonsense://x"],
        ["stats", "shm://"],
        ["doctor", "shm://app?memry=1G"],
        ["resize", "shm://app"],
        ["resize", "shm://", "1G"],
        ["demo", "--seconds=soon"],
        ["demo", "--seconds=0"],
        ["demo", "--workers=0"],
        ["demo", "--stacks=memcached"],
        ["demo", "--json=/nonexistent/numbers.json"],
        ["demo", "--no-report", "--trace=/nonexistent/trace"],
    ],
)
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == BAD_USAGE
    captured = capsys.readouterr()
    assert "celeriac" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_store_that_is_not_there(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"t-{secrets.token_hex(6)}"
    assert run(command, f"shm://{name}") == FINDING
    assert name in capsys.readouterr().err
    with pytest.raises(celeriac.StoreNotFound):
        celeriac.connect(f"shm://{name}", create=False)


def test_resize(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "memory=" in store.url, "which raises the ceiling again for nobody here"
    assert run("resize", store.url, "8M") == FINE
    assert "memory_limit: 8.0 MiB" in capsys.readouterr().out
    assert store.stats()["memory_limit"] == 8 << 20
    for wrong in ("much", "1M"):
        assert run("resize", store.url, wrong) == BAD_USAGE
        assert "memory=" in capsys.readouterr().err
    for _ in range(60):
        store.queue("work").put(b"x" * 100_000)
    assert run("resize", store.url, "4M") == FINDING
    captured = capsys.readouterr()
    assert "need" in captured.err
    assert captured.out == ""
    for command in ("stats", "doctor"):
        assert run(command, store.url) == FINE
    assert store.stats()["memory_limit"] == 8 << 20


def test_resize_of_a_store_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("resize", f"shm://t-{secrets.token_hex(6)}", "4M") == FINDING
    assert "there is no store" in capsys.readouterr().err


def test_stats(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stats", store.url) == FINE
    assert "no queues" in capsys.readouterr().out
    work = store.queue("work")
    for _ in range(1_234):
        work.put("x")
    assert run("stats", store.url) == FINE
    table = capsys.readouterr().out
    assert run("stats", store.url, "--json") == FINE
    stats = json.loads(capsys.readouterr().out)
    assert stats["queues"]["work"]["ready"] == 1_234
    assert stats["memory_limit"] == 16 << 20
    assert "1,234" in table
    assert "16.0 MiB" in table
    assert all(name in table for name in stats)


def test_doctor_of_a_healthy_store(
    store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("doctor", store.url) == FINE
    assert "nothing to repair" in capsys.readouterr().out


HOLDER = """
import sys, time, celeriac
message = celeriac.connect(sys.argv[1]).queue("work").get(timeout=10)
print(message.id, flush=True)
time.sleep(600)
"""


def test_doctor_gives_back_what_the_dead_held(
    store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.queue("work").put("x")
    command = [sys.executable, "-c", HOLDER, store.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline()
        holder.kill()
    assert run("doctor", store.url) == FINDING
    report = capsys.readouterr().out
    assert "found 1 dead" in report
    assert f" {holder.pid} " in report
    assert store.queue("work").counts().ready == 1
    assert run("doctor", store.url) == FINE


def test_doctor_tells_of_corruption() -> None:
    assert doctor.find([], 0, {"corrupt": 0}) == []
    assert doctor.find([], 0, {"corrupt": 2}) == ["2 corrupt parts were found and dropped"]


def test_missing_packages_name_the_extra(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "gunicorn" else find(name)
    )
    assert run("demo") == BAD_USAGE
    error = capsys.readouterr().err
    assert "gunicorn" in error
    assert "pip install 'celeriac[demo]'" in error
    assert list(tmp_path.iterdir()) == []


def test_unwritable_report_is_told_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo-report.html").mkdir()
    assert run("demo") == BAD_USAGE
    assert "demo-report.html" in capsys.readouterr().err


def test_as_a_module(store: celeriac.Store) -> None:
    command = [sys.executable, "-m", "celeriac.cli", "stats", store.url, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == FINE, done.stderr
    assert json.loads(done.stdout)


def test_reader_that_goes_away_is_no_traceback(store: celeriac.Store) -> None:
    command = f"{sys.executable} -m celeriac.cli stats {store.url} | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""


def test_plain_table_is_aligned() -> None:
    text = plain_table(["", "LocMem", "celeriac"], [["requests/s", "9", "1,000"], ["x", "", "–"]])
    assert text.splitlines() == [
        "            LocMem  celeriac",
        "----------  ------  --------",
        "requests/s       9     1,000",
        "x                          –",
    ]
