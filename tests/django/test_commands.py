"""`manage.py cache_monitor` and `manage.py celeriac`, as processes of a project of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import celeriac

MANAGE = Path(__file__).parent / "support" / "manage_site.py"
Manage = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def manage(location: str) -> Manage:
    """Runs a command of the project: `manage("check", options={"memory": "8M"})`."""

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(MANAGE), location, json.dumps(options), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture
def filled(location: str) -> celeriac.Store:
    store = celeriac.connect(location)
    cache = store.cache("django", lead=":1:")
    for number in range(4):
        cache.set(f":1:product:{number}", number)
    cache.get(":1:product:1")
    cache.get(":1:absent")
    queue = store.queue("mail", max_deliveries=1)
    queue.put_many(["a", "b"])
    (message,) = queue.get_many(1, 0)
    message.nack(reason="no")
    return store


def test_stats(manage: Manage, filled: celeriac.Store) -> None:
    for given in ((), ("--stats",)):
        done = manage("cache_monitor", *given)
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert "hit ratio   50.0 %" in lines
        assert "misses      1" in lines
        assert any(line.startswith("cache 'django': 1 hits, 1 misses, 4 sets") for line in lines)
        assert any(line.startswith("queue 'mail': 1 ready, 0 delayed") for line in lines)
    found = json.loads(manage("cache_monitor", "--stats", "--json").stdout)
    assert found["caches"]["django"]["entries"] == 4


def test_clear(manage: Manage, filled: celeriac.Store) -> None:
    done = manage("cache_monitor", "--clear")
    assert (done.returncode, done.stdout) == (0, "cleared the cache 'default'\n")
    assert len(filled.cache("django")) == 0
    assert filled.queue("mail").counts().ready == 1


def test_test(manage: Manage, filled: celeriac.Store) -> None:
    done = manage("cache_monitor", "--test")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ok: written, read, counted and removed in ")
    assert len(filled.cache("django")) == 4


def test_watch(manage: Manage, filled: celeriac.Store) -> None:
    done = manage("cache_monitor", "--watch", "--seconds", "0.01", "--lines", "3")
    assert done.returncode == 0, done.stderr
    heads, first, *others = done.stdout.splitlines()
    assert heads.split()[:3] == ["time", "hit", "ratio"]
    assert first.split()[1:6] == ["50.0", "%", "–", "–", "–"]
    assert [line.split()[3:6] for line in others] == [["0/s", "0/s", "0/s"]] * 2


def test_watch_ends_with_an_interrupt(location: str, filled: celeriac.Store) -> None:
    command = [sys.executable, str(MANAGE), location, "{}", "cache_monitor", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        for _ in range(2):  # until there is a line of numbers
            watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
    assert (watching.returncode, said) == (0, b"")


@pytest.mark.parametrize("what", ["--stats", "--clear", "--test", "--watch"])
@pytest.mark.parametrize("tolerant", [False, True])
def test_a_store_that_is_away(manage: Manage, what: str, tolerant: bool) -> None:
    done = manage("cache_monitor", what, create=False, IGNORE_EXCEPTIONS=tolerant)
    assert done.returncode == 1
    assert "StoreNotFound: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cache_that_does_not_keep_what_it_is_given(manage: Manage, location: str) -> None:
    with celeriac.connect(location, memory="8M") as store:
        queue = store.queue("q")
        for size in (1 << 20, 10_000, 100, 1):
            put = partial(queue.put, b"x" * size)
            with pytest.raises(celeriac.QueueFull):
                list(iter(put, None))
        done = manage("cache_monitor", "--test", IGNORE_EXCEPTIONS=True)
    assert done.returncode == 1
    assert "CommandError: NotEnoughMemory: " in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--stats", "--clear"], "not allowed with argument"),
        (["--cache", "gone"], "there is no cache 'gone' in CACHES; there are default, local"),
        (["--cache", "local"], "the cache 'local' in CACHES is no CeleriacCache"),
        (["--watch", "--seconds", "0"], "above zero"),
        (["--watch", "--seconds", "x"], "invalid float value"),
        (["--watch", "--lines", "0"], "above zero"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_wrong_usage(manage: Manage, arguments: list[str], said: str) -> None:
    done = manage("cache_monitor", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_line_has_the_projects_store(manage: Manage, filled: celeriac.Store) -> None:
    found = manage("celeriac", "stats", "--json")
    assert json.loads(found.stdout)["path"] == filled.path
    again = manage("celeriac", "stats", filled.url, "--json")
    assert json.loads(again.stdout)["path"] == filled.path
    dead = manage("celeriac", "dead", "mail", "--limit", "1")
    assert dead.returncode == 1
    assert "no" in dead.stdout
    retried = manage("celeriac", "retry", "--cache", "default", "mail")
    assert (retried.returncode, retried.stdout) == (0, "1 put back\n")
    assert manage("celeriac", "dead", "mail").returncode == 0
    assert manage("celeriac", "verify").returncode == 2  # it has no journal


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "usage: celeriac"),
        (["dead", "--help"], 0, "usage: celeriac dead"),
        (["--version"], 0, f"celeriac {celeriac.__version__}"),
        (["dead", "nowhere"], 1, "no queue 'nowhere'"),
        (["nonsense"], 2, "invalid choice"),
        (["stats", "shm://"], 2, "celeriac: "),
        (["stats", "--cache", "local"], 2, "is no CeleriacCache"),
        (["stats", "--cache=gone"], 2, "there is no cache 'gone'"),
        (["stats", "--cache"], 2, "--cache takes the name of a cache"),
        ([], 2, "required"),
    ],
)
def test_its_exit_codes(
    manage: Manage, filled: celeriac.Store, arguments: list[str], code: int, said: str
) -> None:
    done = manage("celeriac", *arguments)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_called_from_python(manage: Manage, filled: celeriac.Store) -> None:
    done = manage("call", "celeriac", "queues", "--seconds", "0")
    assert done.returncode == 0, done.stderr
    assert "mail" in done.stdout
    assert manage("call", "celeriac", "dead", "mail").returncode == 1
