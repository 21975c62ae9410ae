"""The benchmarks run, and what they write is what README.md beside them is made of.

Nothing is said about speed here.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 300


@pytest.fixture(scope="module", autouse=True)
def _path() -> None:
    sys.path.insert(0, str(ROOT))


GROUPS = {
    "cache": {
        "One process",
        "Sum of several processes at once",
        "Slowest of all sets, 4 processes at once",
    },
    "queue": {"One process", "Producers × consumers at once"},
    "durable": {"Puts, everysec", "Puts, always"},
    "locks": {"One process", "2 processes that want one lock", "4 processes that want one lock"},
    "celery": {
        "Publishing",
        "Working off a full queue",
        "From delay() to the task's start, idle worker",
        "delay().get(), idle worker",
        "A chord, idle worker",
        "Tasks with an ETA in an hour: memory of the worker that would run them",
        "Idle worker: wake-ups a second",
    },
    "limits": {"One process", "Several processes that hit one key at once"},
    "metrics": {"One process", "A scrape of many processes"},
}


def need(*packages: str) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on the PATH; install it (for example: apt install it)")
    for package in ("redis", "hiredis", *packages):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"no Python package {package}; pip install '.[test]'")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A script in a session of its own; all of it is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=SECONDS)
    except BaseException:
        process.terminate()  # it stops its servers and workers
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def check_summary(part: dict[str, Any], rounds: int) -> None:
    assert set(part) == {"median", "min", "max", "samples"}
    assert len(part["samples"]) == rounds
    assert all(math.isfinite(sample) and sample > 0 for sample in part["samples"])
    assert min(part["samples"]) == part["min"] <= part["median"] <= part["max"]
    assert max(part["samples"]) == part["max"]


def check_result(document: dict[str, Any], result: dict[str, Any]) -> None:
    rounds = document["options"]["rounds"]
    assert result["unit"]
    assert result["better"] in ("lower", "higher")
    assert "celeriac" in result["systems"]
    assert set(result["systems"]) <= set(document["systems"])
    assert ("redis" if "redis" in document["systems"] else "multi") in result["ratios"]["celeriac"]
    for part in result["systems"].values():
        check_summary(part, rounds)
    for our, peers in result["ratios"].items():
        assert our in document["ours"]
        for peer, part in peers.items():
            check_summary(part, rounds)
            mine = result["systems"][our]["samples"][0]
            theirs = result["systems"][peer]["samples"][0]
            expected = theirs / mine if result["better"] == "lower" else mine / theirs
            assert part["samples"][0] == pytest.approx(expected, rel=0.01)


@pytest.mark.worker
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("cache", ["django"]),
        ("queue", []),
        ("durable", []),
        ("limits", []),
        ("locks", []),
        ("metrics", ["prometheus_client"]),
        ("celery", ["celery"]),
    ],
)
def test_quick_run(name: str, packages: list[str], tmp_path: Path) -> None:
    need(*packages)
    groups = GROUPS[name]
    file, folder = tmp_path / "out.json", tmp_path / "charts"
    done = run(
        f"benchmarks.{name}", "--quick", "--rounds", "1", "--json", str(file), "--plot", str(folder)
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    assert document["benchmark"] == name
    assert document["quick"] is True
    assert document["options"]["rounds"] == 1
    assert {"cpu", "cores", "kernel", "architecture"} <= set(document["machine"])
    versions = {"redis", "hiredis", "redis-server"} if "redis" in document["systems"] else set()
    assert {"python", "celeriac", *versions} <= set(document["versions"])
    assert {result["group"] for result in document["results"]} == groups
    for result in document["results"]:
        check_result(document, result)
        assert f"| {result['case']} |" in done.stdout
    charts = list(folder.glob(f"{name}-*.svg"))
    drawn = {(result["group"], result["unit"]) for result in document["results"]}
    assert len(charts) == len(drawn)
    for chart in charts:
        assert ElementTree.parse(chart).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--rounds", "0"], "--rounds and --seconds are above zero"),
        (["--seconds", "0"], "--rounds and --seconds are above zero"),
        (["--faster"], "unrecognized arguments: --faster"),
    ],
)
def test_bad_option(arguments: list[str], complaint: str) -> None:
    need("django")
    done = run("benchmarks.cache", *arguments)
    assert done.returncode == 2
    assert complaint in done.stderr


# What the cache has been promised to be faster at, alone and beside others, and than what.
ALONE = {
    *(f"get {kind}" for kind in ("int", "1 KB bytes", "5-field dict", "10 KB list of dicts")),
    *(f"set {kind}" for kind in ("int", "1 KB bytes", "5-field dict", "10 KB list of dicts")),
    "get, missing",
    "get_many of 100 dicts",
    "incr",
    "delete dict",
    "touch dict",
}
BESIDE = {f"{call} dict, {n} process{'es' * (n > 1)}" for call in ("get", "set") for n in (1, 2, 4)}
PEERS = {"locmem", "redis", "django-redis", "diskcache", "pylibmc"}


def test_the_cache_is_compared_in_all_that_it_promises() -> None:
    from benchmarks import cache, cache_systems

    assert {case.name for case in cache_systems.SINGLE} >= ALONE
    assert {
        f"{case.name}, {n} process{'es' * (n > 1)}"
        for case in cache_systems.SHARED
        for n in cache.SHAPES
    } >= BESIDE
    assert set(cache_systems.AGAINST["celeriac"]) == PEERS


def test_readme_has_the_numbers_of_its_results() -> None:
    done = run("benchmarks.tables", "--check")
    assert done.returncode == 0, done.stderr


def test_results_are_whole() -> None:
    files = sorted((ROOT / "benchmarks" / "results").glob("*-*.json"))
    assert {file.name.split("-")[0] for file in files} >= set(GROUPS)
    for file in files:
        document = json.loads(file.read_text())
        assert re.fullmatch(rf"{document['benchmark']}-\d{{4}}-\d\d-\d\d\.json", file.name)
        assert document["quick"] is False
        assert document["started"][:10] in file.name
        for result in document["results"]:
            check_result(document, result)
