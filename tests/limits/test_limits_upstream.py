"""The own tests of `limits`, of storages and strategies, plain and asynchronous, run on our storage
from its released source.

They run in processes of their own, beside `upstream/fixtures.py`, which gives them our storage.
Nothing is left out; one that fails, or is skipped, is a failure.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import pytest

FIXTURES = Path(__file__).parent / "upstream" / "fixtures.py"
# Their test modules, and how many tests each has at least for a storage (in limits 5.8).
MODULES = {
    "test_storage": 9,
    "test_strategy": 18,
    "aio/test_storage": 9,
    "aio/test_strategy": 18,
    "integration/test_concurrency": 6,
}
STORES = ("shm", "file")

Run = tuple["subprocess.Popen[str]", Path]


@pytest.fixture(scope="session")
def source(request: pytest.FixtureRequest) -> Path:
    """The source of the installed version of `limits`."""
    for package in ("limits", "redis"):
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            pytest.skip(f"{package} isn't here: pip install '.[test]'")
    import sdist

    version = metadata.version("limits")
    directory = request.config.cache.mkdir("limits-source")
    try:
        if not (directory / f"limits-{version}" / "tests").is_dir():
            sdist.unpack(sdist.download("limits", version, directory), directory)
    except sdist.Unavailable as error:
        pytest.skip(str(error))
    return directory / f"limits-{version}"


@pytest.fixture(scope="module")
def runs(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """Each module on each store, all at once: most of their time they sleep."""
    started: dict[str, Run] = {}
    for kind in STORES:
        for module in MODULES:
            directory = tmp_path_factory.mktemp(kind)
            shutil.copytree(source / "tests", directory / "tests")
            shutil.copy(FIXTURES, directory / "tests" / "conftest.py")
            started[f"{kind} {module}"] = start(kind, module, directory), directory
    yield started
    for process, _ in started.values():
        process.kill()
        process.wait()


def start(kind: str, module: str, directory: Path) -> subprocess.Popen[str]:
    """Runs one of their modules."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=all.xml"]
    command += ["--rootdir=.", "-c", os.devnull, f"tests/{module}.py"]
    place = f"{directory}/store" if kind == "file" else f"t-limits-{secrets.token_hex(6)}"
    path = [str(directory), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path),
        "CELERIAC_TEST_STORE": f"celeriac+{kind}://{place}",
        "CELERIAC_COMPLETE": "0",
    }
    with (directory / "said").open("w") as said:
        return subprocess.Popen(
            command, env=environment, stdout=said, stderr=said, cwd=directory, text=True
        )


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("kind", STORES)
def test_limits_own(kind: str, module: str, runs: dict[str, Run]) -> None:
    process, directory = runs[f"{kind} {module}"]
    process.wait(timeout=240)
    report = directory / "all.xml"
    assert report.exists(), f"the runner itself failed:\n{(directory / 'said').read_text()}"
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [child for child in case if child.tag in ("failure", "error", "skipped")]
        name = f"{case.get('classname')}.{case.get('name')}"
        outcomes[name] = wrong[0].text or "skipped" if wrong else "passed"
    assert {name: text for name, text in outcomes.items() if text != "passed"} == {}
    assert sum(f"celeriac+{kind}://" in name for name in outcomes) >= MODULES[module]
