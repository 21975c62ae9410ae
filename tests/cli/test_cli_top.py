"""`celeriac top`, and `celeriac stats --watch`: for people in a terminal, and for programs."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import celeriac
from celeriac.cli import BAD_USAGE, FINDING, FINE, main, top_looks


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


def test_help_and_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("top", "--help") == FINE
    assert "usage: celeriac top" in capsys.readouterr().out
    for wrong in ([], ["nonsense://x", "--once"], ["shm://x", "--seconds=0"], ["shm://x"]):
        assert run("top", *wrong) == BAD_USAGE
        captured = capsys.readouterr()
        assert "celeriac" in captured.err
        assert captured.out == ""
    name = f"t-{secrets.token_hex(6)}"
    assert run("top", f"shm://{name}", "--once") == FINDING
    assert name in capsys.readouterr().err


def test_rich_is_named_where_it_is_missing(
    store: celeriac.Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "rich" else find(name)
    )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run("top", store.url) == BAD_USAGE
    assert "pip install 'celeriac[top]'" in capsys.readouterr().err
    assert run("top", store.url, "--once", "--seconds=0.1") == FINE


def counts(**given: int) -> dict[str, int]:
    return {**dict.fromkeys([*top_looks.COUNTED, "entries", "bytes"], 0), **given}


def test_rates_are_those_between_two_looks(store: celeriac.Store) -> None:
    queue = store.queue("q")
    stats = store.stats()
    before = {**stats, "caches": {"c": counts(hits=100, misses=100), "celeriac.x": counts()}}
    now = {
        **stats,
        "caches": {
            "c": counts(hits=130, misses=110, sets=20, deletes=1, evictions=7, entries=3),
            "celeriac.x": counts(hits=1_000_000),
            "new": counts(hits=5),
        },
    }
    before["queues"] = {"q": {**queue.counts()._asdict(), "done": 4}}
    for _ in range(10):
        queue.put("x")
    found = top_looks.difference(store, before, now, 2.0)
    cache = found["caches"]["c"]
    assert found["caches"].keys() == {"c", "new"}, "none of the library's own"
    assert cache["hit_ratio"] == round(130 / 240, 4)
    assert cache["hit_ratio_now"] == 0.75
    assert cache["operations_per_second"] == (30 + 10 + 20 + 1) / 2
    assert cache["evictions_per_second"] == 3.5
    assert found["total"]["hits"] == 135
    assert found["total"]["hit_ratio_now"] == 0.75
    assert found["total"]["entries"] == 3
    assert found["queues"]["q"]["put_per_second"] == 3.0, "10 more, and 4 that were done are gone"
    assert found["queues"]["q"]["done_per_second"] == 0.0, "never below zero"
    assert found["memory"]["limit"] == 16 << 20


def test_once(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.cache("c").set("k", 1)
    store.cache("c").get("k")
    queue = store.queue("mail\x1b[31m")
    queue.put("x")
    message = queue.get(0)
    assert run("top", store.url, "--once", "--seconds=0.1", "--json") == FINE
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found["caches"]["c"]["hit_ratio"] == 1.0
    assert found["caches"]["c"]["hit_ratio_now"] is None
    assert found["queues"]["mail\x1b[31m"]["reserved"] == 1
    (process,) = (each for each in found["processes"] if each["pid"] == os.getpid())
    assert (process["queues"], process["reserved"]) == (["mail\x1b[31m"], 1)
    assert process["state"] == "alive"
    assert run("top", store.url, "--once", "--seconds=0.1") == FINE
    text = capsys.readouterr().out
    assert "memory " in text
    assert "hit ratio 100.0%" in text
    assert all(line.isprintable() for line in text.splitlines())
    assert message is not None


Watch = Callable[..., tuple[subprocess.Popen[bytes], int]]


@pytest.fixture
def watch(store: celeriac.Store) -> Iterator[Watch]:
    """Starts `celeriac ARGUMENTS` in a terminal of its own; with the terminal's other end."""
    started: list[subprocess.Popen[bytes]] = []
    ends: list[int] = []

    def start(*arguments: str) -> tuple[subprocess.Popen[bytes], int]:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "celeriac", *arguments]
        env = {**os.environ, "TERM": "xterm", "COLUMNS": "160", "LINES": "50"}
        started.append(subprocess.Popen(command, stdin=theirs, stdout=theirs, env=env))
        os.close(theirs)
        ends.append(ours)
        return started[-1], ours

    yield start
    for process in started:
        process.kill()
        process.wait()
    for end in ends:
        os.close(end)


def read_until(end: int, *wanted: str) -> str:
    """What is written, until all of these texts came in this order."""
    text, rest = "", list(wanted)
    while rest:
        text += os.read(end, 65536).decode(errors="replace")
        place = 0
        for each in wanted:
            place = text.find(each, place)
            if place < 0:
                break
        else:
            return text
    return text


def drain(end: int) -> threading.Thread:
    """Read what is still written, or nobody could write it."""

    def read() -> None:
        try:
            while os.read(end, 65536):
                pass
        except OSError:  # it has closed its end
            return

    reader = threading.Thread(target=read)
    reader.start()
    return reader


def finish(process: subprocess.Popen[bytes], end: int) -> int:
    """Ctrl-C, and the exit code."""
    reader = drain(end)
    process.send_signal(signal.SIGINT)
    code = process.wait(60)
    reader.join()
    return code


def test_live_page(store: celeriac.Store, watch: Watch) -> None:
    cache = store.cache("prices")
    cache.set("k", 1)
    process, end = watch("top", store.url, "--seconds=0.1")
    read_until(end, "hit ratio -", "prices", "Ctrl-C ends it")
    cache.get("k")
    store.queue("mail\x1b[31m").put("x")
    text = read_until(end, "hit ratio 100.0%", "mail\\x1b[31m")
    assert "mail\x1b" not in text
    assert finish(process, end) == FINE


def test_live_page_of_a_store_that_goes_away(store: celeriac.Store, watch: Watch) -> None:
    other = celeriac.connect(f"shm://t-{secrets.token_hex(6)}")
    process, end = watch("top", other.url, "--seconds=0.1")
    read_until(end, "Ctrl-C ends it")
    other.destroy(force=True)
    reader = drain(end)
    assert process.wait(60) == FINDING
    reader.join()


@pytest.mark.parametrize("command", ["stats", "top"])
def test_lines_for_programs(command: str, store: celeriac.Store) -> None:
    watching = ["--watch"] if command == "stats" else []
    arguments = [command, store.url, *watching, "--json", "--seconds=0.1"]
    with subprocess.Popen(
        [sys.executable, "-m", "celeriac", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            found: list[Any] = [json.loads(process.stdout.readline()) for _ in range(3)]
            store.cache("c").set("k", 1)
            while not found[-1]["caches"]:
                found.append(json.loads(process.stdout.readline()))
            process.send_signal(signal.SIGINT)
            rest, error = process.communicate(timeout=60)
            assert (process.returncode, error) == (FINE, "")
            assert all(json.loads(line) for line in rest.splitlines())
        finally:
            process.kill()


def test_stats_in_a_terminal(store: celeriac.Store, watch: Watch) -> None:
    process, end = watch("stats", store.url, "--watch", "--seconds=0.1")
    read_until(end, "\x1b[2J", "memory_limit", "\x1b[2J", "no queues")
    store.queue("mail").put("x")
    read_until(end, "\x1b[2J", "mail")
    assert finish(process, end) == FINE
