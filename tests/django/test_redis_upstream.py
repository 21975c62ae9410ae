"""django-redis's own tests of its calls, run on celeriac from its released source.

`test_backend.py`, `test_session.py` and `test_cache_options.py`, with each serializer, and in a
`file://` store. They run in a process of their own, beside `redis_upstream/fixtures.py`, which
gives them our backend. Each test that is left out is named here, with the reason; one that fails,
or is skipped, is a failure.
"""

from __future__ import annotations

import importlib.util
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

OURS = Path(__file__).parent / "redis_upstream"

INTERNALS = "asserts on the Redis client inside of django-redis"
NOT_PROMISED = "Redis's hashes and sets are not promised"

LEFT_OUT = {
    # names, or prefixes of names that end in a star
    "test_set_call_empty_pipeline": INTERNALS,
    "test_delete_pattern_with_custom_count": INTERNALS,
    "test_delete_pattern_with_settings_default_scan_count": INTERNALS,
    "test_close_client": INTERNALS,
    "test_close_uninitialized_client": INTERNALS,
    "test_close_with_signal_parameter": INTERNALS,
    "test_primary_replica_switching": INTERNALS,
    "test_primary_replica_switching_with_index": INTERNALS,
    "test_custom_key_function": INTERNALS + "; see test_more.py",
    "test_get_django_omit_exceptions_priority_2": "expects redis-py's ConnectionError; see "
    "test_more.py",
    "test_h[a-z]*": NOT_PROMISED,
    "test_s(add|card|diff|inter|ismember|members|move|pop|rand|rem|scan|mismember|union)[a-z_]*": (
        NOT_PROMISED
    ),
    "test_interstore": NOT_PROMISED,
    "test_hash_[a-z_]*": NOT_PROMISED,
}
LEFT_OUT_WITH = {
    "msgpack": {"test_intenum": "MessagePack has no enums: an IntEnum comes back as an int"},
}
RUN_AT_LEAST = 90
SETTINGS = ("native", "file", "json", "msgpack", "zlib")  # all but the second in shm://


@pytest.fixture(scope="session")
def source(request: pytest.FixtureRequest) -> Path:
    """The source of django-redis."""
    if importlib.util.find_spec("redis") is None or importlib.util.find_spec("msgpack") is None:
        pytest.skip("redis and msgpack aren't here, which it imports: pip install '.[test]'")
    import redis_source
    import sdist

    try:
        return redis_source.django_redis(request.config.cache.mkdir("django-redis-source"))
    except sdist.Unavailable as error:
        pytest.skip(str(error))


def wanted(source: Path, settings: str) -> set[str]:
    """The names of the tests that are run."""
    left_out = [*LEFT_OUT, *LEFT_OUT_WITH.get(settings, ())]
    return {n for n in names_of(source) if not any(re.fullmatch(p, n) for p in left_out)}


def names_of(source: Path) -> set[str]:
    """The names of all tests in the three files."""
    files = [
        source / "tests" / f"test_{name}.py" for name in ("backend", "session", "cache_options")
    ]
    lines = [line.strip() for file in files for line in file.read_text("utf-8").splitlines()]
    return {line[4:].partition("(")[0] for line in lines if line.startswith("def test_")}


def outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """(class and name, "passed" or what went wrong) of each test that was run."""
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [child for child in case if child.tag in ("failure", "error", "skipped")]
        name = f"{case.get('classname')}.{case.get('name')}"
        yield name, wrong[0].text or "skipped" if wrong else "passed"


Run = tuple["subprocess.Popen[str]", Path]


@pytest.fixture(scope="module")
def runs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """The tests with each of the settings, all at once: most of their time they sleep."""
    import redis_source

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=all.xml"]
    command += ["--rootdir=.", "-o", "addopts=", "tests"]
    started: dict[str, Run] = {}
    for settings in SETTINGS:
        directory = tmp_path_factory.mktemp(settings)
        redis_source.lay_out(source, OURS, directory)
        path = [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path),
            "CELERIAC_TEST_SETTINGS": settings,
            "CELERIAC_TEST_STORES": f"file://{directory}/" if settings == "file" else "shm://",
            "CELERIAC_TEST_RUN": secrets.token_hex(6),
            "CELERIAC_TEST_NAMES": ",".join(sorted(wanted(source, settings))),
            "CELERIAC_COMPLETE": "0",
        }
        with (directory / "said").open("w") as said:
            process = subprocess.Popen(
                command, env=environment, stdout=said, stderr=said, cwd=directory, text=True
            )
        started[settings] = process, directory
    yield started
    for process, _ in started.values():
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
def test_django_redis_own(settings: str, source: Path, runs: dict[str, Run]) -> None:
    process, directory = runs[settings]
    process.wait(timeout=240)
    report = directory / "all.xml"
    assert report.exists(), f"the runner itself failed:\n{(directory / 'said').read_text()}"
    results = dict(outcomes(report))
    assert {name: text for name, text in results.items() if text != "passed"} == {}
    run = {name.rpartition(".")[2].partition("[")[0] for name in results}
    assert run == wanted(source, settings)
    assert len(results) >= RUN_AT_LEAST


def test_every_reason_is_needed(source: Path) -> None:
    names = names_of(source)
    assert [p for p in LEFT_OUT if not any(re.fullmatch(p, name) for name in names)] == []
