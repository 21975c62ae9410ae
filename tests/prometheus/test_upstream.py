"""prometheus_client's own tests, from its released source, with celeriac.prometheus.install().

Each module runs in a process of its own, and on a store of its own. Nothing is rerun, and a skip
that isn't listed is a failure.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

import celeriac

pytest.importorskip("prometheus_client", reason="the extra celeriac[prometheus] isn't installed")

SUPPORT = Path(__file__).parent / "support"

# The module, how many tests of it pass at least (in prometheus_client 0.26), and how many metrics
# of them are in the store at least.
MODULES = {
    "test_core": (114, 130),
    "test_exposition": (95, 20),
    "test_asgi": (10, 10),
    "test_wsgi": (7, 6),
    "test_django": (1, 1),
    "test_graphite_bridge": (7, 0),
    "test_process_collector": (4, 0),
    "test_gc_collector": (2, 0),
    "test_platform_collector": (2, 0),
    "test_samples": (2, 0),
}

# Tests whose outcome isn't judged, each with the reason.
NOT_JUDGED = {
    "TestPushGateway::test_push_with_snappy_compression": "needs the package python-snappy",
    "TestWsgiTLS::test_mtls_untrusted_client_cert_raises": "the server closes before "
    "the client has read why: it fails as often without celeriac, in about every second run",
}

# Modules that don't run on ours, and why.
NOT_OURS = {
    "test_multiprocess": "reads the files of PROMETHEUS_MULTIPROC_DIR, which install() does "
    "without, and has one process pretend to be several; what it says of the modes: test_modes.py",
    "test_parser": "a parser of the text format, which touches no metric",
    "test_utils": "functions that touch no metric",
    "test_aiohttp": "the exposer for aiohttp, which calls what test_asgi and test_exposition do",
    "test_twisted": "the exposer for twisted, which calls what test_wsgi does",
}


@pytest.mark.slow
@pytest.mark.parametrize("module", MODULES)
def test_prometheus_clients_own(module: str, prometheus_tests: Path, tmp_path: Path) -> None:
    url = f"shm://t-{secrets.token_hex(6)}"
    result = tmp_path / "result.json"
    environment = {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": os.pathsep.join([str(SUPPORT), *filter(None, sys.path)]),
        "CELERIAC_STORE": url,
        "CELERIAC_RESULT": str(result),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "under_install",
        "-p",
        "no:cacheprovider",
    ]
    command += [
        "-c",
        os.devnull,
        "--rootdir=.",
        f"tests/{module}.py",
    ]  # not this project's settings
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            cwd=prometheus_tests.parent,
        )
    finally:
        celeriac.connect(url).destroy(force=True)
    assert result.exists(), f"the runner itself failed:\n{done.stdout}\n{done.stderr}"
    said = json.loads(result.read_text(encoding="utf-8"))
    outcomes = said["outcomes"]
    bad = {n: why for n, (how, why) in outcomes.items() if how != "passed" and n not in NOT_JUDGED}
    assert not bad, "\n\n".join(f"{name}: {why}" for name, why in bad.items())
    passed, adopted = MODULES[module]
    ran = sum(how == "passed" for how, _ in outcomes.values())
    assert ran >= passed, f"only {ran} tests were run"
    assert said["adopted"] >= adopted, f"only {said['adopted']} metrics were in the store"


def test_every_module_of_its_tests_is_accounted_for(prometheus_tests: Path) -> None:
    modules = {path.stem for path in prometheus_tests.rglob("test_*.py")}
    assert modules - set(MODULES) - set(NOT_OURS) == set()
