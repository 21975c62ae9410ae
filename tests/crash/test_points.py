"""Every crash point: a process dies there, another repairs, and nothing is lost, doubled or leaked.

Needs an extension with crash points, as the gate's step crash builds one:

    pip install . -Ccmake.define.CELERIAC_CRASH_POINTS=ON

CELERIAC_CRASH_DEPTH (default 1) multiplies the passages at which a victim dies;
CELERIAC_CRASH_STORIES=N takes every Nth story only.
"""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from aftermath import judge, picture_of, sizes_of_structures
from heap_picture import SEGMENTS, kinds_of_blocks
from scenarios import SCENARIOS, Scenario
from victims import Allowed, End, run

import celeriac
from celeriac import _core

pytestmark = pytest.mark.skipif(
    not _core.crash_points,
    reason="this extension has no crash points: build it with CELERIAC_CRASH_POINTS=ON, "
    "as the gate's step crash does",
)

SRC = Path(__file__).parents[2] / "src"
DEPTH = int(os.environ.get("CELERIAC_CRASH_DEPTH", "1"))
TOLD = SCENARIOS[:: int(os.environ.get("CELERIAC_CRASH_STORIES", "1"))]
NO_POINTS = {"part.operation.place"}  # an example in a comment


def names_in_source() -> set[str]:
    pattern = re.compile(r'CRASH_POINT\("([^"]*)"\)')
    names = {n for path in SRC.rglob("*.?pp") for n in pattern.findall(path.read_text())}
    return names - NO_POINTS


@pytest.fixture
def urls() -> Iterator[Any]:
    """Makes URLs of stores that don't exist, and removes what they became."""
    made: list[str] = []

    def new(memory: str) -> str:
        made.append(f"shm://t-{uuid.uuid4().hex[:12]}?memory={memory}")
        return made[-1]

    yield new
    for url in made:
        remove(url)


def remove(url: str) -> None:
    celeriac.connect(url).destroy(force=True)


@contextmanager
def bystander(url: str) -> Iterator[None]:
    """A process that is attached and does nothing."""
    ready, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        store = celeriac.connect(url)
        store.cache("c").get("nothing")
        os.write(said, b".")
        while True:
            signal.pause()
    try:
        assert os.read(ready, 1) == b"."
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(ready)
        os.close(said)


def perform(scenario: Scenario, url: str, point: str | None, nth: int) -> tuple[Allowed, End]:
    """Prologue and victims; what may be found now, and how the last victim ended."""
    with bystander(url) if scenario.company else nullcontext():
        return act(scenario, url, point, nth)


def act(scenario: Scenario, url: str, point: str | None, nth: int) -> tuple[Allowed, End]:
    allowed = Allowed()
    for story, where in scenario.prologue:
        before = run(url, story, where)
        assert before.killed, f"{scenario.name}: the prologue didn't pass {where}"
        allowed.take(before.told)
    end = run(url, scenario.story, point, nth)
    allowed.take(end.told)
    for _ in range(scenario.deaths - 1):
        if end.killed:
            end = run(url, scenario.story, point, nth)
            allowed.take(end.told)
    return allowed, end


def after(
    scenario: Scenario, url: str, point: str | None, nth: int
) -> tuple[End, Counter[str], Allowed]:
    """Performs and judges; the victim's end and what stays in an emptied heap."""
    allowed, end = perform(scenario, url, point, nth)
    with celeriac.connect(url) as store:
        judge(store, allowed) if not allowed.gone else judge_the_destroyed(store, allowed)
        return end, kinds_of_blocks(picture_of(store), *sizes_of_structures()), allowed


def judge_the_destroyed(store: celeriac.Store, allowed: Allowed) -> None:
    """The store is as it was, or a new one; both work."""
    if store.cache("c").get("a") is None:
        allowed = Allowed()
    judge(store, allowed)


@pytest.mark.parametrize("scenario", TOLD, ids=lambda s: s.name)
def test_death_at_each_point(scenario: Scenario, urls: Any) -> None:
    control, most, allowed = after(scenario, urls(scenario.memory), None, 1)
    assert not control.killed
    # Which shards have a table depends on the store's random seed: no more than there are keys.
    # Nor which shards of the rate limits have one, of the same size; places of concurrency limits
    # have it too, but as many in every run.
    tables = min(64, len(allowed.keys) + len(allowed.limits))
    most["tables of the index"] = max(tables, most["tables of the index"])
    # What a dead writer reserved in a segment keeps that segment until memory is short.
    most[SEGMENTS] += scenario.segments
    deaths = 0
    points = [point for point in control.passed if not point.startswith(scenario.others)]
    for point in points:
        for nth in range(1, scenario.nth * DEPTH + 1):
            url = urls(scenario.memory)
            where = f"{scenario.name}: died at passage {nth} of {point}"
            try:
                end, left, _ = after(scenario, url, point, nth)
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
            remove(url)
            more = {kind: (n, most[kind]) for kind, n in left.items() if n > most[kind]}
            assert not more, f"{where}: leaked {more} (found, allowed)"
            if not end.killed:
                break
            deaths += 1
    assert deaths >= len(points) // 2


def test_every_point_is_passed(urls: Any) -> None:
    passed = set()
    for scenario in SCENARIOS:
        _, end = perform(scenario, urls(scenario.memory), None, 1)
        passed |= set(end.passed)
    # Those of stores with a journal are died at in the C++ tests, with ledgers of their own.
    ledgers = "".join(
        (SRC.parent / "tests" / "cpp" / f"{name}_test.cpp").read_text()
        for name in ("journal_kill", "journal_spare", "durable")
    )
    elsewhere = {name for name in names_in_source() if f'"{name}"' in ledgers}
    assert sorted(names_in_source() - passed - elsewhere) == []
