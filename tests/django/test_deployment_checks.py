"""What `manage.py check --deploy` says of the host that a project runs on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import celeriac

SUPPORT = Path(__file__).parent / "support"
LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"


def check(
    location: str, before: str = "", env: dict[str, str] | None = None, **settings: Any
) -> list[tuple[str, str]]:
    """What `check --deploy` finds, as id and text, of a site that ran some code `before`."""
    given = json.dumps({"settings": {"CACHES": {}, **settings}})
    # As `python manage_site.py LOCATION OPTIONS check --deploy` is.
    start = "runpy.run_path(sys.argv[0], run_name='__main__')"
    program = f"import runpy, sys\nsys.argv.pop(0)\n{before}\n{start}"
    arguments = [str(SUPPORT / "manage_site.py"), location, given, "check", "--deploy"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]), **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    return re.findall(r"\((celeriac\.\w+)\) (.*)", done.stderr)


def test_a_store_of_the_same_name_of_another_user(tmp_path: Path) -> None:
    env = {"CELERIAC_SHM_DIR": str(tmp_path)}
    assert check("shm://app", env=env) == []
    (tmp_path / "celeriac-987654" / "other").mkdir(parents=True)
    assert check("shm://app", env=env) == []
    (tmp_path / "celeriac-987654" / "app").mkdir()
    (tmp_path / "celeriac-0" / "app").mkdir(parents=True, exist_ok=True)
    found = check("shm://app", env=env)
    assert [id for id, _ in found] == ["celeriac.W007"]
    assert "the user 987654" in found[0][1]
    assert "has a store 'app', too" in found[0][1]
    assert ("'root'" in found[0][1]) == (os.geteuid() != 0)


INSTALLED = """
try:
    from celeriac.prometheus import install
except ModuleNotFoundError:
    import types
    sys.modules["celeriac.prometheus.installed"] = types.ModuleType("installed")
    sys.modules["celeriac.prometheus.installed"]._installed = object()
else:
    install(sys.argv[1])
"""


def test_two_kinds_of_metrics(location: str, tmp_path: Path) -> None:
    assert check(location, INSTALLED) == []
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        assert check(location, env={name: str(tmp_path)}) == []
        ((id, said),) = check(location, INSTALLED, env={name: str(tmp_path)})
        assert id == "celeriac.W008"
        assert said.startswith(f"{name} is set")


def test_a_public_page_of_metrics(location: str) -> None:
    ((id, said),) = check(location, ROOT_URLCONF="metrics_site_urls")
    assert id == "celeriac.W009"
    assert "'/inner/metrics' answers whoever asks" in said
    assert check(location, ROOT_URLCONF="metrics_site_urls", MIDDLEWARE=[LOGIN]) == []
    silent = {"SILENCED_SYSTEM_CHECKS": ["celeriac.W009"]}
    assert check(location, ROOT_URLCONF="metrics_site_urls", **silent) == []


def test_results_that_stay(location: str) -> None:
    backend = f"celeriac+{location}"
    assert check(location, CELERY_RESULT_BACKEND=backend) == []
    assert check(location, CELERY_RESULT_BACKEND="redis://x", CELERY_RESULT_EXPIRES=None) == []
    for never in (None, 0):
        settings = {"CELERY_RESULT_BACKEND": backend, "CELERY_RESULT_EXPIRES": never}
        ((id, said),) = check(location, **settings)
        assert id == "celeriac.W010"
        assert "never expire" in said


def test_results_that_fill_the_store(location: str) -> None:
    with celeriac.connect(location, memory="8M") as store:
        table = store.table("celeriac.celery.results")
        for number in range(30):
            table.set(str(number), b"x" * 100_000)
        backend = f"celeriac+{location}?memory=1G"
        settings = {"CELERY_RESULT_BACKEND": backend, "CELERY_RESULT_EXPIRES": 7200}
        assert check(location, **settings) == []
        for number in range(30, 50):
            table.set(str(number), b"x" * 100_000)
        ((id, said),) = check(location, **settings)
        assert id == "celeriac.W010"
        assert "of the 8.0 MiB of their store, and stay for 2.0 h each" in said


@pytest.mark.parametrize(("expires", "found"), [(None, 1), (60, 0)])
def test_the_results_of_an_application(location: str, expires: int | None, found: int) -> None:
    made = f"""
import celery
app = celery.Celery(broker="memory://", backend="celeriac+{location}")
app.conf.result_expires = {expires}
"""
    assert [id for id, _ in check(location, made)] == ["celeriac.W010"] * found
