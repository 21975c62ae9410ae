"""The command line: help, exit codes, and messages instead of tracebacks."""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac.cli import BAD_USAGE, FINDING, FINE, findings, main, processes
from celeriac.cli.tables import plain_table


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    store = celeriac.connect(f"shm://t-{secrets.token_hex(6)}?memory=16M")
    yield store
    celeriac.connect(store.url).destroy(force=True)


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
    store.cache("c").set("product:7", 1)
    assert run("stats", store.url) == FINE
    table = capsys.readouterr().out
    assert run("stats", store.url, "--json") == FINE
    stats = json.loads(capsys.readouterr().out)
    assert stats["queues"]["work"]["ready"] == 1_234
    assert stats["memory_limit"] == 16 << 20
    assert stats["prefixes"]["c"]["product"]["sets"] == 1
    assert "c 'product'" in table
    assert "1,234" in table
    assert "16.0 MiB" in table
    assert all(name in table for name in stats)


@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_looking_leaves_the_ceiling(
    command: str, store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    url = store.url.partition("?")[0]
    for open_here in (True, False):
        assert run(command, f"{url}?memory=32M&create=true") == FINE
        assert "16.0 MiB" in capsys.readouterr().out
        if open_here:  # by then the command's handle is the only one
            store.close()
    assert celeriac.connect(url).stats()["memory_limit"] == 16 << 20


def test_stats_bring_no_queue_back(store: celeriac.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celeriac.Store, "queues", lambda self: ["gone"])
    assert store.stats()["queues"] == {}
    assert not store.has_queue("gone")


@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_tables_are_shown(
    command: str, store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, store.url) == FINE
    assert "no tables" in capsys.readouterr().out
    table = store.table("celeriac.celery.results")
    for number in range(1_234):
        table.set(f"k{number}", b"x" * 300)
    store.cache("c").set("k", 1)
    assert run(command, store.url) == FINE
    (line,) = (
        line for line in capsys.readouterr().out.splitlines() if "celeriac.celery.results" in line
    )
    assert {"1,234", f"{table.stats().bytes:,}"} <= set(line.split())
    assert store.stats()["tables"].keys() == {"celeriac.celery.results"}
    assert store.stats()["caches"].keys() == {"c"}


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


@pytest.fixture
def holder(store: celeriac.Store) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has reserved a message."""
    store.queue("work").put("x")
    command = [sys.executable, "-c", HOLDER, store.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_doctor_gives_back_what_the_dead_held(
    store: celeriac.Store,
    holder: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    holder.kill()
    holder.wait()
    assert run("doctor", store.url) == FINDING
    report = capsys.readouterr().out
    assert "found 1 dead process: what it held" in report
    assert f" {holder.pid} " in report
    assert store.queue("work").counts().ready == 1
    assert run("doctor", store.url) == FINE


def test_doctor_tells_of_corruption() -> None:
    def said(*found: Any) -> list[tuple[str, str]]:
        return [tuple(each) for each in findings.after_recovery(*found)]

    assert said([], 0, {"corrupt": 0}) == []
    assert said([], 0, {"corrupt": 1}) == [("D03", "1 corrupt part was found and dropped")]
    assert said([], 0, {"corrupt": 2}) == [("D03", "2 corrupt parts were found and dropped")]
    assert said([], 2, {"corrupt": 0}) == [
        ("D01", "found 2 dead processes: what they held has been given back")
    ]
    assert [code for code, _ in said([], 0, {"corrupt": 0, "journal_failed": 1})] == ["D04"]


@pytest.mark.parametrize(("limit", "found"), [(None, 0), (3, 0), (2, 1)])
def test_doctor_tells_when_processes_have_to_poll(limit: int | None, found: int) -> None:
    owners = [{"state": state} for state in ("alive", "dead", "alive", "stopped")]
    for number, owner in enumerate(owners):
        owner.update(pid=str(number), command="x")
    told = findings.after_recovery(owners, 0, {"corrupt": 0}, limit)
    assert sum("fs.inotify.max_user_instances=2" in each.said for each in told) == found


def test_doctor_names_a_stopped_process(
    store: celeriac.Store,
    holder: subprocess.Popen[bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    holder.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
    assert run("doctor", store.url) == FINDING
    report = capsys.readouterr().out
    assert f"process {holder.pid} " in report
    assert "is stopped" in report
    assert "nothing to repair" not in report
    holder.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, holder.pid, os.WCONTINUED)
    assert run("doctor", store.url) == FINE


def test_doctor_shows_the_processes_when_one_blocks_the_rest(
    store: celeriac.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stats(self: celeriac.Store) -> None:
        raise celeriac.LockTimeout("busy")

    monkeypatch.setattr(celeriac.Store, "stats", stats)
    assert run("doctor", store.url) == FINDING
    report = capsys.readouterr().out
    assert f" {os.getpid()} " in report
    assert "\nD14: busy\n" in report


def test_a_stopped_process_of_another_store_is_not_meant(tmp_path: Path) -> None:
    (tmp_path / "owners.lock").touch()
    with subprocess.Popen(["sleep", "600"]) as other:
        try:
            other.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, other.pid, os.WSTOPPED)
            owner = {"pid": other.pid, "alive": True}
            assert processes.state_of(owner, str(tmp_path)) == "alive"
        finally:
            other.kill()


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


@pytest.mark.parametrize("module", ["celeriac", "celeriac.cli"])
def test_as_a_module(store: celeriac.Store, module: str) -> None:
    command = [sys.executable, "-m", module, "stats", store.url, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == FINE, done.stderr
    assert json.loads(done.stdout)


def test_reader_that_goes_away_is_no_traceback(store: celeriac.Store) -> None:
    command = f"{sys.executable} -m celeriac.cli stats {store.url} | true"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_full_disk_is_no_traceback(store: celeriac.Store, unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "celeriac", "stats", store.url],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == FINDING
    assert done.stderr.splitlines() == ["celeriac: [Errno 28] No space left on device"]


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("command", ["stats", "doctor"])
def test_closed_output_is_no_traceback(store: celeriac.Store, command: str, closed: str) -> None:
    line = f"{sys.executable} -m celeriac.cli {command} {store.url} {closed}"
    done = subprocess.run(
        ["bash", "-c", line], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (FINE, "", "")


def test_what_the_encoding_lacks_is_escaped(store: celeriac.Store) -> None:
    store.cache("café").set("café:1", 1)
    done = subprocess.run(
        [sys.executable, "-m", "celeriac", "stats", store.url],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (FINE, "")
    assert "caf\\xe9 'caf\\xe9'" in done.stdout


def test_names_steer_no_terminal(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a\nb", "\x1b[31mred", "\u202ereversed", "schön"):
        cache = store.cache(name)
        for prefix in (b"\xff", b"\\xff", b"\n"):
            cache.set(prefix + b":1", 1)
    assert run("stats", store.url) == FINE
    table = capsys.readouterr().out
    assert all(line.isprintable() for line in table.splitlines())
    for label in ("a\\nb", "\\x1b[31mred", "\\u202ereversed", "schön"):
        prefixes = {
            line.split("  ")[0] for line in table.splitlines() if line.startswith(f"{label} ")
        }
        quoted = {repr(repr(b"\xff")), repr("\\xff"), repr("\n")}
        assert prefixes == {label, *(f"{label} {prefix}" for prefix in quoted)}


def test_plain_table_is_aligned() -> None:
    text = plain_table(["", "LocMem", "celeriac"], [["requests/s", "9", "1,000"], ["x", "", "–"]])
    assert text.splitlines() == [
        "            LocMem  celeriac",
        "----------  ------  --------",
        "requests/s       9     1,000",
        "x                          –",
    ]
