"""System checks: what is wrong or does nothing in a project's settings, said before it matters.

Always (`manage.py check`):

- `celeriac.E001`: something in `CELERIAC` is unknown or wrong
- `celeriac.W001`: `RateLimitMiddleware` before `RequestStatsMiddleware`, which then misses what is
  refused
- `celeriac.W002`: `RATE_LIMITS` without `RateLimitMiddleware`: nothing is limited
- `celeriac.W003`: `RateLimitMiddleware` without `RATE_LIMITS`: nothing is limited

Before a deployment (`manage.py check --deploy`):

- `celeriac.W004`: a cache that each process has for itself, beside one that all share
- `celeriac.W005`: `/dev/shm` is smaller than a store may become
- `celeriac.W006`: a store that can't be used, and why
- `celeriac.W007` to `celeriac.W010`: :mod:`celeriac.django.deployment`
"""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from celeriac.django import conf, deployment, health, shown
from celeriac.django.rate_limits import RateLimitMiddleware
from celeriac.django.request_stats import RequestStatsMiddleware
from celeriac.errors import ConfigurationError
from celeriac.url import DEFAULT_MEMORY, parse_url

__all__ = ["check_deployment", "check_settings", "register"]

_ALONE = ("LocMemCache", "FileBasedCache")


def register() -> None:
    """Let Django run them; once for each process."""
    checks.register(check_settings, "celeriac")
    checks.register(check_deployment, "celeriac", deploy=True)


def check_settings(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Those that look at settings alone."""
    try:
        found = conf.read()
    except ConfigurationError as error:
        return [checks.Error(str(error), id="celeriac.E001")]
    stats, limits = _places(RequestStatsMiddleware), _places(RateLimitMiddleware)
    problems = []
    if stats and limits and min(limits) < min(stats):
        problems.append(
            checks.Warning(
                "RateLimitMiddleware stands before RequestStatsMiddleware in MIDDLEWARE: requests "
                "that it refuses have no X-Request-ID and no times.",
                hint="Put RequestStatsMiddleware first.",
                id="celeriac.W001",
            )
        )
    if found.rate_limits and not limits:
        problems.append(
            checks.Warning(
                "CELERIAC has RATE_LIMITS, but MIDDLEWARE has no RateLimitMiddleware: nobody is "
                "limited by them.",
                hint="Add 'celeriac.django.middleware.RateLimitMiddleware' to MIDDLEWARE.",
                id="celeriac.W002",
            )
        )
    if limits and not found.rate_limits:
        problems.append(
            checks.Warning(
                "MIDDLEWARE has RateLimitMiddleware, but CELERIAC has no RATE_LIMITS: nobody is "
                "limited by it.",
                hint="CELERIAC = {'RATE_LIMITS': {'guest': '50/min'}}",
                id="celeriac.W003",
            )
        )
    return problems


def _places(middleware: type) -> list[int]:
    """Where a middleware, or one derived from it, stands."""
    found = []
    for place, name in enumerate(settings.MIDDLEWARE):
        try:
            each = import_string(name)
        except (ImportError, RuntimeError):  # not there, or its app isn't: Django says that better
            continue
        if isinstance(each, type) and issubclass(each, middleware):
            found.append(place)
    return found


def check_deployment(app_configs: Any, **options: Any) -> list[checks.CheckMessage]:
    """Those that look at the host that this runs on."""
    urls, problems = {}, []
    for alias in settings.CACHES:
        try:
            urls[alias] = conf.url_of(alias)
        except health.UNUSABLE:  # no CeleriacCache, or one that Django can't make
            backend = str(settings.CACHES[alias].get("BACKEND", "")).rpartition(".")[2]
            if backend in _ALONE:
                problems.append(_alone(alias, backend))
    for alias, url in urls.items():
        problems += _too_small(alias, url)
        problems += deployment.others_of_the_name(url)
        try:
            health.try_out(conf.store_of(alias))
        except health.UNUSABLE as error:
            problems.append(
                checks.Warning(
                    f"The store of the cache {alias!r} can't be used: {health.reason_of(error)}",
                    hint="Run this as the user that serves the site; `manage.py celeriac doctor` "
                    "says more.",
                    id="celeriac.W006",
                )
            )
    problems += deployment.two_kinds_of_metrics()
    problems += deployment.metrics_are_public()
    problems += deployment.results_that_stay()
    return problems


def _alone(alias: str, backend: str) -> checks.CheckMessage:
    what = "lives in each process alone" if backend == "LocMemCache" else "reads files each time"
    return checks.Warning(
        f"The cache {alias!r} is a {backend}, which {what}.",
        hint="'BACKEND': 'celeriac.django.cache.CeleriacCache' is shared by all processes.",
        id="celeriac.W004",
    )


def _too_small(alias: str, url: str) -> list[checks.CheckMessage]:
    parsed = parse_url(url)
    root = os.environ.get("CELERIAC_SHM_DIR") or "/dev/shm"
    if parsed.is_file or not os.path.isdir(root):
        return []
    system = os.statvfs(root)
    there = system.f_frsize * system.f_blocks
    memory = parsed.options.memory or DEFAULT_MEMORY
    if not there or memory <= there:
        return []
    return [
        checks.Warning(
            f"The store of the cache {alias!r} may grow to {shown.size(memory)}, and {root} has "
            f"{shown.size(there)}: it would be full before.",
            hint="Mount more (docker run --shm-size), or set a smaller memory in OPTIONS.",
            id="celeriac.W005",
        )
    ]
