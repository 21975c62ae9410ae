"""What `manage.py check --deploy` sees of a project as it runs on this host (`checks.py`):

- `celeriac.W007`: another user of this host has a store of the same name, which isn't the same one
- `celeriac.W008`: PROMETHEUS_MULTIPROC_DIR beside `celeriac.prometheus.install()`
- `celeriac.W009`: a page of metrics that answers whoever asks
- `celeriac.W010`: results of tasks that never expire, or take over half of their store
"""

from __future__ import annotations

import glob
import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core import checks
from django.urls import get_resolver

from celeriac.django import health, shown
from celeriac.store import Store
from celeriac.url import parse_url

__all__ = ["metrics_are_public", "others_of_the_name", "results_that_stay", "two_kinds_of_metrics"]

RESULTS = "celeriac.celery.results"
_METRICS = ("celeriac.", "django_prometheus.", "prometheus_client.")


def others_of_the_name(url: str) -> list[checks.CheckMessage]:
    """Web and worker under two users have two stores: neither sees the other's cache or tasks."""
    parsed = parse_url(url)
    if parsed.is_file:
        return []
    root = glob.escape(os.environ.get("CELERIAC_SHM_DIR") or "/dev/shm")
    mine = f"celeriac-{os.geteuid()}"
    users = sorted(
        _user(folder.removeprefix("celeriac-"))
        for path in glob.glob(f"{root}/celeriac-*/{glob.escape(parsed.name)}")
        if (folder := os.path.basename(os.path.dirname(path))) != mine
    )
    if not users:
        return []
    return [
        checks.Warning(
            f"{', '.join(users)} has a store {parsed.name!r}, too: shm://{parsed.name} is another "
            "one for each user.",
            hint="Run web server, workers and management commands as one user; or, if it isn't "
            "used any more, remove the other one.",
            id="celeriac.W007",
        )
    ]


def _user(number: str) -> str:
    with suppress(ValueError, KeyError):
        return f"the user {pwd.getpwuid(int(number)).pw_name!r}"
    return f"the user {number}"


def two_kinds_of_metrics() -> list[checks.CheckMessage]:
    """The variable makes prometheus_client write files, which install() makes useless."""
    names = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
    given = next((name for name in names if os.environ.get(name)), None)
    module = sys.modules.get("celeriac.prometheus.installed")
    if given is None or getattr(module, "_installed", None) is None:
        return []
    return [
        checks.Warning(
            f"{given} is set, and celeriac.prometheus.install() is called: metrics live in the "
            "store, and nobody reads that directory's files.",
            hint=f"Unset {given}, and remove the hooks of prometheus_client's multi-process mode "
            "(child_exit, mark_process_dead, MultiProcessCollector).",
            id="celeriac.W008",
        )
    ]


def metrics_are_public() -> list[checks.CheckMessage]:
    """A view of metrics without a decorator; who keeps it behind a proxy says so by silencing."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return []
    found = []
    with suppress(Exception):  # URLs that can't be loaded are for Django's own checks
        found = [route for route, view in _views(get_resolver().url_patterns) if _is_open(view)]
    return [
        checks.Warning(
            f"The page of metrics at {'/' + route!r} answers whoever asks.",
            hint="Let the proxy in front answer it to your Prometheus alone, or put a decorator "
            "around the view. Where that is seen to: "
            "SILENCED_SYSTEM_CHECKS = ['celeriac.W009'].",
            id="celeriac.W009",
        )
        for route in found
    ]


def _views(patterns: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if hasattr(pattern, "url_patterns"):
            yield from _views(pattern.url_patterns, route)
        else:
            yield route, pattern.callback


def _is_open(view: Any) -> bool:
    """Whether a view is one of metrics as its package has it: nothing is wrapped around it, and it
    isn't behind LoginRequiredMiddleware."""
    name = f"{getattr(view, '__module__', '')}.{getattr(view, '__qualname__', '')}".lower()
    if not (name.startswith(_METRICS) and ("metrics" in name or "export" in name)):
        return False
    behind = "django.contrib.auth.middleware.LoginRequiredMiddleware" in settings.MIDDLEWARE
    return not hasattr(view, "__wrapped__") and not (
        behind and getattr(view, "login_required", True)
    )


def results_that_stay() -> list[checks.CheckMessage]:
    """Results of Celery's tasks are never evicted: what doesn't expire in time fills the store."""
    backend, expires = _celery()
    if not backend.startswith(("celeriac+", "celeriac://")):
        return []
    seconds = expires.total_seconds() if isinstance(expires, timedelta) else expires
    if not seconds:
        return [
            checks.Warning(
                "Results of tasks never expire (result_expires), and a store doesn't evict them: "
                "one day it is full, and then no task can be sent.",
                hint="result_expires = 3600, and ignore_result=True where nobody asks for it.",
                id="celeriac.W010",
            )
        ]
    with suppress(*health.UNUSABLE):  # that is W006's to say, or Celery's
        url = parse_url(backend.removeprefix("celeriac+"), create=False)
        with Store(url, looking=True) as store:
            return _large(store, seconds)
    return []


def _large(store: Store, seconds: float) -> list[checks.CheckMessage]:
    limit = store.stats()["memory_limit"]
    if RESULTS not in store.tables() or (taken := store.table(RESULTS).stats().bytes) <= limit / 2:
        return []
    return [
        checks.Warning(
            f"Results of tasks take {shown.size(taken)} of the {shown.size(limit)} of their store, "
            f"and stay for {shown.seconds(seconds)} each (result_expires).",
            hint="A shorter result_expires, ignore_result=True where nobody asks for a result, or "
            "more memory in the URL.",
            id="celeriac.W010",
        )
    ]


def _celery() -> tuple[str, Any]:
    """Celery's result backend and result_expires: of the application that this process has, else of
    the settings."""
    state: Any = sys.modules.get("celery._state")
    with suppress(Exception):  # an application that can't be configured says so itself
        if state is not None and (app := state.get_current_app()).conf.result_backend:
            return str(app.conf.result_backend), app.conf.result_expires
    day = timedelta(days=1)
    return (
        str(getattr(settings, "CELERY_RESULT_BACKEND", "") or ""),
        getattr(settings, "CELERY_RESULT_EXPIRES", day),
    )
