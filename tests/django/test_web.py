"""A whole site on celeriac: cache middleware, sessions, template fragments; and without a store.

Django's own tests of these run in test_upstream.py; here the parts work together, and an unusable
store is a slower site and never an error page.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac.url import parse_url

WEB = Path(__file__).parent / "support" / "web.py"
TOLERANT = {"IGNORE_EXCEPTIONS": True}


def visit(location: str, engine: str, options: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What each page answered, and what was logged."""
    command = [sys.executable, str(WEB), location, json.dumps(options), engine]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("engine", ["cache", "cached_db"])
def test_a_site(location: str, engine: str) -> None:
    got, said = visit(location, engine, {})
    assert got == {
        "/page": ["page 1"] * 3,
        "/visits": ["1", "2", "3"],
        "/fragment?user=1": ["fragment 1"] * 3,
        "/alone": ["alone 1"] * 3,
        "another": "fragment 2",
        "after": "fragment 3",
        "tables": [],
        "ignored": False,
    }
    assert said == ""
    again, _ = visit(location, engine, {})  # another process finds what this one left
    assert (again["/page"], again["/alone"]) == (["page 1"] * 3, ["alone 1"] * 3)
    assert again["/fragment?user=1"] == ["fragment 3"] * 3


@pytest.fixture
def absent(location: str) -> dict[str, Any]:
    return {"create": False}


@pytest.fixture
def damaged(location: str) -> Iterator[dict[str, Any]]:
    """A store whose header is noise."""
    celeriac.connect(location).close()
    root = Path(os.environ.get("CELERIAC_SHM_DIR", "/dev/shm"))
    arena = root / f"celeriac-{os.geteuid()}" / parse_url(location).name / "arena"
    with arena.open("r+b") as file:
        file.write(bytes(range(100)))
    yield {}
    arena.unlink()


@pytest.fixture
def full(location: str) -> Iterator[dict[str, Any]]:
    """A store that is full of messages, so that nothing can be set."""
    with celeriac.connect(location, memory="8M") as store:
        queue = store.queue("q")
        for size in (1 << 20, 10_000, 100, 1):
            try:
                while True:
                    queue.put(b"x" * size)
            except celeriac.QueueFull:
                continue
        yield {"memory": "8M"}


@pytest.mark.parametrize("what", ["absent", "damaged", "full"])
def test_without_a_store(location: str, what: str, request: pytest.FixtureRequest) -> None:
    options = {**request.getfixturevalue(what), **TOLERANT}
    got, said = visit(location, "cached_db", options)
    if what == "full":  # what is small may still find a place
        answers = [got[page] for page in ("/page", "/alone", "/fragment?user=1")]
        assert all(isinstance(text, str) for answer in answers for text in answer)
    else:
        assert got["/page"] == ["page 1", "page 2", "page 3"]
        assert got["/alone"] == ["alone 1", "alone 2", "alone 3"]
        assert got["/fragment?user=1"] == ["fragment 1", "fragment 2", "fragment 3"]
    assert got["/visits"] == ["1", "2", "3"]
    assert got["ignored"] is True
    assert 1 <= len(said.splitlines()) <= 2, said  # once for each alias, not for each request
