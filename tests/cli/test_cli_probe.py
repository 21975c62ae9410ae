"""`celeriac probe`: usage, and what it costs. Of real workers: test_celery_probe.py."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac.cli import BAD_USAGE, FINDING, FINE, main


@pytest.fixture
def store() -> Iterator[celeriac.Store]:
    with celeriac.connect(f"shm://t-{secrets.token_hex(6)}?memory=16M") as store:
        yield store
        store.destroy(force=True)


def run(*arguments: str) -> int:
    """The exit code, argparse's own included."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(str(end.code))


def test_help_and_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["probe"], ["probe", "worker"]):
        assert run(*command, "--help") == FINE
        assert "usage: celeriac probe" in capsys.readouterr().out
        assert run(*command) == BAD_USAGE
    assert run("--help") == FINE
    assert "probe" in capsys.readouterr().out
    wrong = (["x://y"], ["shm://"], ["shm://app?memry=1"], ["shm://app", "--ping=0"])
    for arguments in wrong:
        assert run("probe", "worker", *arguments) == BAD_USAGE
        assert "celeriac" in capsys.readouterr().err
    assert run("probe", "beat", "shm://app") == BAD_USAGE


@pytest.mark.parametrize("more", ["", "?memory=512M", "?memory=512M&mode=0660"])
def test_a_store_that_is_not_there(more: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"t-{secrets.token_hex(6)}"
    assert run("probe", "worker", f"celeriac+shm://{name}{more}") == FINDING
    assert name in capsys.readouterr().err
    with pytest.raises(celeriac.StoreNotFound):
        celeriac.connect(f"shm://{name}", create=False)


def test_probing_changes_nothing(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.queue("q").put("x")
    before = store.stats()
    for url in (store.url, f"celeriac+{store.url.partition('?')[0]}?memory=1G"):
        assert run("probe", "worker", url) == FINDING
        assert "no Celery worker is attached" in capsys.readouterr().err
    assert store.stats() == before


WORKER = """
import sys, celeriac
store = celeriac.connect(sys.argv[1])
control = store.queue("w1@host.celery.pidbox", owner_bound=True)
tasks = store.queue("celery").get(timeout=10)
print(celeriac.__name__, flush=True)
while True:
    control.get()
"""


BUSY = """
import sys, time, celeriac
control = celeriac.connect(sys.argv[1]).queue("w1@host.celery.pidbox", owner_bound=True)
print("there", flush=True)
time.sleep(600)
"""


def test_who_neither_waits_nor_reserves_is_busy(
    store: celeriac.Store, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", BUSY, store.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline()
            assert run("probe", "worker", store.url) == FINE
            assert capsys.readouterr().out == "w1@host: busy, doesn't wait for tasks now\n"
            assert run("probe", "worker", store.url, "--ping=0.1") == FINDING
            assert "w1@host: stuck" in capsys.readouterr().out
        finally:
            worker.kill()
    assert run("probe", "worker", store.url) == FINDING
    assert "no Celery worker is attached" in capsys.readouterr().err


def test_it_imports_neither_django_nor_celery(store: celeriac.Store, tmp_path: Path) -> None:
    store.queue("celery").put("x")
    command = [sys.executable, "-c", WORKER, store.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline()
            found, modules = loaded("probe", "worker", store.url, "--json", "--queue=celery")
            assert [each["pid"] for each in json.loads(found)] == [worker.pid]
            assert [each["reserved"] for each in json.loads(found)] == [1]
        finally:
            worker.kill()
    heavy = {"django", "celery", "kombu", "rich", "asyncio", "inspect", "logging", "urllib.parse"}
    assert heavy & modules == set()
    assert {name for name in modules if name.startswith("celeriac")} == {
        "celeriac",
        "celeriac._core",
        "celeriac.cli",
        "celeriac.cli.probe",
        "celeriac.cli.processes",
        "celeriac.errors",
    }


def test_no_command_imports_django_or_celery(store: celeriac.Store) -> None:
    for command in (["stats"], ["keys"], ["doctor"], ["top", "--once", "--seconds=0.1"]):
        _, modules = loaded(command[0], store.url, *command[1:])
        assert {"django", "celery", "kombu"} & modules == set()


LOADED = """
import sys
from celeriac.cli import main
code = main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def loaded(*arguments: str) -> tuple[str, set[Any]]:
    """What a command prints, and the modules that it has loaded; it ends well."""
    command = [sys.executable, "-c", LOADED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == FINE, done.stderr
    return done.stdout, set(done.stderr.split())
