"""`celeriac check-production`: each finding is found where it should be, and nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from celeriac.cli import BAD_USAGE, FINDING, FINE
from celeriac.monitoring import Options, write

pytest.importorskip("django", reason="the extra celeriac[django] isn't installed")

OURS = {"BACKEND": "celeriac.django.cache.CeleriacCache", "LOCATION": "shm://t-app?memory=2M"}
GOOD: dict[str, Any] = {
    "DEBUG": False,
    "SECRET_KEY": "".join(map(chr, range(48, 110))),
    "ALLOWED_HOSTS": ["example.org"],
    "USE_TZ": True,
    "SECURE_HSTS_SECONDS": 3600,
    "SECURE_HSTS_INCLUDE_SUBDOMAINS": True,
    "SECURE_HSTS_PRELOAD": True,
    "SECURE_SSL_REDIRECT": True,
    "SESSION_COOKIE_SECURE": True,
    "CSRF_COOKIE_SECURE": True,
    "SESSION_ENGINE": "django.contrib.sessions.backends.cached_db",
    "SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_PROTO", "https"],
    "INSTALLED_APPS": ["django.contrib.contenttypes", "django.contrib.sessions", "celeriac.django"],
    "MIDDLEWARE": [
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "celeriac.django.middleware.RateLimitMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    "CACHES": {"default": OURS},
    "CELERIAC": {"RATE_LIMITS": {"guest": "50/min"}, "TRUSTED_PROXIES": ["127.0.0.1"]},
    "CELERY_BROKER_URL": "celeriac+file:///var/lib/app?memory=2M",
    "CELERY_RESULT_BACKEND": "celeriac+shm://t-app",
    "CELERY_TASK_ACKS_LATE": True,
    "CELERY_TASK_REJECT_ON_WORKER_LOST": True,
    "CELERY_TASK_TIME_LIMIT": 300,
}
LIMITS = {"guest": "50/min"}
# What changes, and the codes that are found then.
CHANGES: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"DEBUG": True}, {"security.W018"}),
    ({"SECRET_KEY": "short"}, {"security.W009"}),
    ({"ALLOWED_HOSTS": []}, {"security.W020"}),
    ({"SECRET_KEY": "short", "SILENCED_SYSTEM_CHECKS": ["security.W009"]}, set()),
    (
        {"CACHES": {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}},
        # the result backend's URL names no memory=
        {"cache.shared", "memory.said"},
    ),
    (
        {"CACHES": {"default": {**OURS, "OPTIONS": {"memry": "1G"}}}},
        {"celeriac.settings", "django.checks", "memory.said"},
    ),
    ({"CELERIAC": {"RATE_LIMIT": {}}}, {"celeriac.settings"}),
    ({"CELERY_RESULT_BACKEND": "celeriac+shm://a/b"}, {"celeriac.settings"}),
    ({"CELERY_TASK_ALWAYS_EAGER": True}, {"celery.eager"}),
    ({"CELERY_RESULT_BACKEND": "celeriac+shm://t-results"}, {"memory.said"}),
    ({"CELERY_RESULT_BACKEND": "celeriac+shm://t-r?memory=900T"}, {"memory.fits"}),
    ({"CELERY_BROKER_URL": "celeriac+file:///var/lib/app?memory=900T"}, set()),
    ({"CELERIAC": {}}, {"limits.rate"}),
    ({"CELERIAC": {"RATE_LIMITS": LIMITS}}, {"limits.proxies"}),
    ({"CELERIAC": {"RATE_LIMITS": LIMITS}, "SECURE_PROXY_SSL_HEADER": None}, set()),
    ({"CELERIAC": {**GOOD["CELERIAC"], "RATE_LIMIT_SHADOW": True}}, {"limits.rate"}),
    ({"CELERY_TASK_TIME_LIMIT": None}, {"celery.time_limit"}),
    ({"CELERY_BROKER_URL": "celeriac+shm://t-app"}, {"broker.durable"}),
    (
        {"CELERY_BROKER_URL": "celeriac+file:///var/lib/app?memory=2M&durability=process"},
        {"broker.durable"},
    ),
    ({"CELERY_BROKER_URL": "redis://localhost"}, set()),
    ({"CELERY_BROKER_URL": "memory://"}, {"broker.durable"}),
    ({"CELERY_TASK_ACKS_LATE": False}, {"celery.acks_late"}),
    ({"SESSION_ENGINE": "django.contrib.sessions.backends.cache"}, {"sessions.durable"}),
    ({"MIDDLEWARE": [m for m in GOOD["MIDDLEWARE"] if "Rate" not in m]}, {"limits.rate"}),
]
PROGRAM = """
import json, sys
from pathlib import Path
good, changes, backups, monitoring = json.load(sys.stdin)
import django
from django.conf import settings
settings.configure(**good, ROOT_URLCONF="urls")
sys.modules["urls"] = type(sys)("urls")
sys.modules["urls"].urlpatterns = []
django.setup()
from django.test.utils import override_settings
from celeriac.django.readiness import points
found = []
for change in changes:
    with override_settings(**change):
        found.append([p for p in points(Path(backups), Path(monitoring))])
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A directory with a backup, and one with what monitors."""
    backups = tmp_path_factory.mktemp("backups")
    (backups / "celeriac-1.backup").touch()
    monitoring = tmp_path_factory.mktemp("monitoring")
    write(monitoring, Options(webhook="http://example.org/alerts"))
    return backups, monitoring


@pytest.fixture(scope="module")
def results(places: tuple[Path, Path]) -> list[list[Any]]:
    """What is found after each of the changes."""
    given = [GOOD, [change for change, _ in CHANGES], *map(str, places)]
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    found: list[list[Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("number", range(len(CHANGES)))
def test_a_change_is_found(number: int, results: list[list[Any]]) -> None:
    found = {code: said for _, code, said, _ in results[number] if said}
    assert set(found) == CHANGES[number][1], found


def test_all_areas_are_looked_at(results: list[list[Any]]) -> None:
    assert {area for area, *_ in results[0]} == {
        "settings",
        "debug",
        "limits",
        "persistence",
        "backups",
        "alerts",
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with the good settings, and a view of nothing."""
    lines = [f"{name} = {value!r}" for name, value in GOOD.items()]
    (tmp_path / "shop_settings.py").write_text("\n".join([*lines, 'ROOT_URLCONF = "shop_urls"\n']))
    (tmp_path / "shop_urls.py").write_text("urlpatterns = []\n")
    (tmp_path / "broken_settings.py").write_text("1 / 0\n")
    return tmp_path


def check(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
    command = [sys.executable, "-m", "celeriac", "check-production", *arguments]
    return subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=120
    )


def test_exit_codes_and_report(project: Path, places: tuple[Path, Path]) -> None:
    backups, monitoring = map(str, places)
    both = ["shop_settings", f"--backups={backups}", f"--monitoring={monitoring}"]
    done = check(project, *both)
    assert (done.returncode, done.stderr) == (FINE, "")
    assert done.stdout.endswith("\nready\n")
    done = check(project, "shop_settings", "--json")
    assert done.returncode == FINDING
    told = json.loads(done.stdout)
    assert told["ready"] is False
    assert [p["code"] for p in told["points"] if p["state"] == "finding"] == [
        "backups.recent",
        "alerts.sent",
    ]
    done = check(project, *both[:2], "--ignore=alerts.sent")
    assert done.returncode == FINE
    assert "ignored" in done.stdout


def test_old_backups_and_alerts_that_go_nowhere(project: Path, tmp_path: Path) -> None:
    backups, monitoring = tmp_path / "b", tmp_path / "m"
    backups.mkdir()
    write(monitoring, Options())
    places = [f"--backups={backups}", f"--monitoring={monitoring}"]
    done = check(project, "shop_settings", *places)
    assert done.returncode == FINDING
    assert f"backups.recent: no backup (*.backup) in {backups}" in done.stdout
    assert "alerts.sent:" in done.stdout
    assert "its default" in done.stdout
    (backups / "x.backup").touch()
    os.utime(backups / "x.backup", (time.time() - 30 * 3600,) * 2)
    (monitoring / "alertmanager/alertmanager.yml").unlink()
    done = check(project, "shop_settings", *places)
    assert "is 30 hours old" in done.stdout
    assert "no alertmanager/alertmanager.yml" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "takes the settings' module"),
        (["nosuch_settings"], "No module named 'nosuch_settings'"),
        (["broken_settings"], "ZeroDivisionError"),
        (["shop_settings", "--backups=nowhere"], "'nowhere' isn't a directory"),
        (["shop_settings", "--ignore=nonsense"], "the codes are"),
    ],
)
def test_bad_usage(project: Path, arguments: list[str], complaint: str) -> None:
    done = check(project, *arguments)
    assert done.returncode == BAD_USAGE
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
