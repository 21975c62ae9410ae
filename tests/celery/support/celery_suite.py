"""Celery's own integration tests, from the source release of the Celery that is installed.

They are not part of Celery's wheels: they are downloaded once with pip, as source, and kept beside
pytest's cache. CELERY_SDIST may name a downloaded ``celery-X.tar.gz`` instead. They run in a pytest
of their own, since they bring a configuration, a session and a worker along. Two things in their
unpacked source are changed:

- What is gated on a result backend whose URL begins with ``redis`` runs for ours too.
- The suite's one worker is the only one to answer: who asks it doesn't wait for the answers of
  others, which takes a second or three less for most of the tests, and doesn't give up on a busy
  machine.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import celery
from sdist import Unavailable, download, unpack

CACHE = Path(__file__).parents[3] / ".pytest_cache" / f"celery-{celery.__version__}"

GATE = re.compile(r"""startswith\(\(?(["'])redis\1(?:, (["']\w+["'])\))?\)""")
ONE_WORKER = """

from celery.app.control import Inspect

_inspect = Inspect.__init__


def _one_worker(self, *args, **kwargs):
    _inspect(self, *args, **kwargs)
    self.limit = self.limit or 1
    self.timeout = max(self.timeout or 0, 10)


Inspect.__init__ = _one_worker
"""


def integration_tests(directory: Path) -> Path:
    """The unpacked and changed tests; the folder that holds ``t``.

    Raises:
        Unavailable: they can't be downloaded.
    """
    given = os.environ.get("CELERY_SDIST")
    archive = Path(given) if given else download("celery", celery.__version__, CACHE)
    wanted = re.compile(r"t/(integration/.*|[^/]*\.py)$|pyproject\.toml$").match
    root = unpack(archive, directory, lambda name: wanted(name) is not None)
    gates = 0
    for path in (root / "t" / "integration").glob("*.py"):
        text, found = GATE.subn(_open, path.read_text())
        gates += found
        path.write_text(text)
    if gates < 50:
        raise Unavailable(f"{archive}: {gates} tests are gated on Redis there; expected some 80")
    with (root / "t" / "integration" / "conftest.py").open("a") as file:
        file.write(ONE_WORKER)
    return root


def _open(gate: re.Match[str]) -> str:
    """The gate, open for our URLs too."""
    names = ["'celeriac'", "'redis'", *filter(None, [gate[2]])]
    return f"startswith(({', '.join(names)}))"


@contextmanager
def scratch_redis(directory: Path) -> Iterator[int]:
    """A redis-server that the tests use as a notepad; yields its port.

    Raises:
        Unavailable: there is none.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise Unavailable("install redis-server: Celery's tests take notes there")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with (directory / "redis.log").open("wb") as log:
        server = subprocess.Popen([program, *options], cwd=directory, stdout=log)
    try:
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        server.terminate()
        server.wait(30)


def run(root: Path, store: str, redis_port: int, arguments: list[str], seconds: float) -> str:
    """Run some of the tests; what pytest printed. Their outcomes are in ``root/outcomes.xml``."""
    url = f"celeriac+{store}"
    environment = {
        **os.environ,
        "TEST_BROKER": url,
        "TEST_BACKEND": url,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(redis_port),
        "PYTHONFAULTHANDLER": "1",
        "WORKER_LOGLEVEL": "INFO",  # as Celery runs them: some look for lines of the log
    }
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    command += ["-p", "celery.contrib.pytest", "-q", "-rs", "--durations=25"]
    command += ["--junitxml=outcomes.xml"]
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        printed, _ = process.communicate()
        raise AssertionError(f"not done after {seconds} s:\n{printed[-4000:]}") from None
    assert process.returncode in (0, 1), printed[-4000:]  # all passed, or some failed
    return printed


def outcomes(root: Path) -> dict[str, tuple[str, str]]:
    """By name (``module::[class::]test``): passed, skipped or failed, and why."""
    found: dict[str, tuple[str, str]] = {}
    for case in ElementTree.parse(root / "outcomes.xml").iter("testcase"):
        module, _, name = case.attrib["classname"].removeprefix("t.integration.").partition(".")
        key = "::".join(filter(None, [module, name, case.attrib["name"]]))
        bad = [*case.iter("failure"), *case.iter("error")]
        skipped = [each for each in case.iter("skipped") if each.get("type") != "pytest.xfail"]
        text = "".join(each.get("message", "") for each in (bad or skipped))
        state = "failed" if bad else "skipped" if skipped else "passed"
        if key not in found or state == "failed":
            found[key] = state, text
    return found
