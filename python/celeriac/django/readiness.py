"""What `celeriac check-production` looks at: whether a project's settings are fit for production.

Each point has a code, so that one that is meant as it is can be left out. Nothing is opened, made
or changed: only settings are read, Django's own deployment checks run, and files looked at.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.core import checks

from celeriac.django import conf, options
from celeriac.errors import ConfigurationError
from celeriac.url import StoreURL, parse_url

__all__ = ["AREAS", "Point", "points"]

AREAS = ("settings", "debug", "limits", "persistence", "backups", "alerts")
OURS = "celeriac.django.cache.CeleriacCache"
ALONE = ("locmem.LocMemCache", "dummy.DummyCache", "filebased.FileBasedCache")
LIMITING = "celeriac.django.middleware.RateLimitMiddleware"
BACKUP_AGE = 26 * 3600.0  # a day, and two hours for a night that was busy
UNSET_WEBHOOK = "http://127.0.0.1:9095/alerts"  # what `monitoring write` has by default


class Point(NamedTuple):
    """Something that was looked at."""

    area: str
    code: str
    found: str
    """What is wrong; empty when nothing is."""
    advice: str = ""


def points(backups: Path | None = None, monitoring: Path | None = None) -> list[Point]:
    """All of them, in the order of AREAS. Django's settings are configured, its apps set up."""
    stores = dict(_stores())
    found = [
        *_of_django(),
        *_of_caches(),
        *_of_debugging(),
        *_of_limits(stores),
        *_of_persistence(stores),
        *_of_backups(stores, backups),
        *_of_alerts(monitoring),
    ]
    return sorted(found, key=lambda point: AREAS.index(point.area))


def _stores() -> Iterator[tuple[str, StoreURL]]:
    """By the name of the setting; a URL that is wrong is a point of `_of_caches`."""
    for alias, entry in settings.CACHES.items():
        if entry.get("BACKEND") == OURS:
            try:
                yield f"CACHES[{alias!r}]", options.parse(entry.get("LOCATION", ""), entry).url
            except ConfigurationError:
                continue
    for name in ("BROKER_URL", "RESULT_BACKEND"):
        url = _celery(name)
        if isinstance(url, str) and url.startswith("celeriac+"):
            try:
                yield f"CELERY_{name}", parse_url(url.removeprefix("celeriac+"))
            except ConfigurationError:
                continue


def _celery(name: str) -> Any:
    return getattr(settings, f"CELERY_{name}", None)


#: System checks of ours that are about the same as a point of this report.
SAID_HERE = ("celeriac.E001", "celeriac.W002", "celeriac.W003", "celeriac.W004")


def _of_django() -> Iterator[Point]:
    """Django's own, and those of the project's applications."""
    try:
        found = checks.run_checks(include_deployment_checks=True)
    except Exception as error:  # of the URL configuration, a backend, or a check of an application
        yield Point("settings", "django.checks", f"Django's checks can't run: {error}")
        return
    silenced = {*settings.SILENCED_SYSTEM_CHECKS, *SAID_HERE}
    serious = [m for m in found if m.level >= checks.WARNING and m.id not in silenced]
    for message in serious:
        area = "debug" if message.id == "security.W018" else "settings"
        yield Point(area, message.id or "django", message.msg, message.hint or "")
    if not serious:
        yield Point("settings", "django.checks", "")


def _of_caches() -> Iterator[Point]:
    entry = settings.CACHES.get("default", {})
    backend = str(entry.get("BACKEND", ""))
    yield Point(
        "settings",
        "cache.shared",
        f"each process has a cache of its own: {backend}" if backend.endswith(ALONE) else "",
        f'"BACKEND": "{OURS}", "LOCATION": "shm://app"',
    )
    wrong = []
    for alias, each in settings.CACHES.items():
        if each.get("BACKEND") == OURS:
            try:
                options.parse(each.get("LOCATION", ""), each)
            except ConfigurationError as error:
                wrong.append(f"CACHES[{alias!r}]: {error}")
    for name in ("BROKER_URL", "RESULT_BACKEND"):
        url = _celery(name)
        if isinstance(url, str) and url.startswith("celeriac+"):
            try:
                parse_url(url.removeprefix("celeriac+"))
            except ConfigurationError as error:
                wrong.append(f"CELERY_{name}: {error}")
    try:
        conf.read()
    except ConfigurationError as error:
        wrong.append(str(error))
    yield Point("settings", "celeriac.settings", "; ".join(wrong))


def _of_debugging() -> Iterator[Point]:
    eager = bool(_celery("TASK_ALWAYS_EAGER"))
    yield Point(
        "debug",
        "celery.eager",
        "CELERY_TASK_ALWAYS_EAGER: tasks run inside of requests" if eager else "",
        "leave it to the settings of tests",
    )
    tools = [app for app in settings.INSTALLED_APPS if app in ("debug_toolbar", "silk")]
    yield Point(
        "debug",
        "debug.apps",
        f"INSTALLED_APPS has {', '.join(tools)}" if tools else "",
        "they record requests, and show them",
    )


def _of_limits(stores: dict[str, StoreURL]) -> Iterator[Point]:
    unsaid = sorted(set(map(_name, stores.values())) - _with_memory(stores))
    yield Point(
        "limits",
        "memory.said",
        f"no memory= for {', '.join(unsaid)}: it ends at 256 MiB" if unsaid else "",
        "name it in one of the URLs, or in OPTIONS of the cache",
    )
    yield Point(
        "limits",
        "memory.fits",
        "; ".join(_too_large(stores)),
        "a larger /dev/shm (mount -o remount,size=…, docker run --shm-size), or less memory=",
    )
    try:
        own = conf.read()
    except ConfigurationError:  # a point of `_of_caches`
        return
    wrong = ""
    if not own.rate_limits:
        wrong = "CELERIAC has no RATE_LIMITS: a client may ask as often as it likes"
    elif LIMITING not in settings.MIDDLEWARE:
        wrong = f"RATE_LIMITS without {LIMITING} in MIDDLEWARE limit nobody"
    elif own.rate_limit_shadow:
        wrong = "RATE_LIMIT_SHADOW: requests over the limit are only counted"
    yield Point("limits", "limits.rate", wrong, "docs/requests.md")
    proxied = bool(settings.SECURE_PROXY_SSL_HEADER or settings.USE_X_FORWARDED_HOST)
    yield Point(
        "limits",
        "limits.proxies",
        "behind a proxy, with no TRUSTED_PROXIES in CELERIAC: all clients have its address"
        if proxied and own.rate_limits and not own.trusted_proxies
        else "",
        '"TRUSTED_PROXIES": ["127.0.0.1"]',
    )
    if _celery("BROKER_URL"):
        endless = _celery("TASK_TIME_LIMIT") is None
        yield Point(
            "limits",
            "celery.time_limit",
            "no CELERY_TASK_TIME_LIMIT: a task that hangs keeps its process" if endless else "",
            "a number of seconds that no task needs",
        )


def _with_memory(stores: dict[str, StoreURL]) -> set[str]:
    """Stores for which some URL says it."""
    return {_name(url) for url in stores.values() if url.options.memory is not None}


def _name(url: StoreURL) -> str:
    return f"{url.scheme}://{url.name}"


def _too_large(stores: dict[str, StoreURL]) -> Iterator[str]:
    largest: dict[str, int] = {}
    for url in stores.values():
        if not url.is_file:
            largest[url.name] = max(largest.get(url.name, 0), url.options.memory or 256 << 20)
    place = os.environ.get("CELERIAC_SHM_DIR") or "/dev/shm"
    try:
        there = os.statvfs(place)
    except OSError as error:
        if largest:
            yield f"{place}: {error.strerror}"
        return
    size = there.f_blocks * there.f_frsize
    if sum(largest.values()) > size:
        yield (
            f"memory= of {', '.join(sorted(largest))} is {sum(largest.values()) >> 20} MiB, and "
            f"{place} has {size >> 20} MiB"
        )


def _of_persistence(stores: dict[str, StoreURL]) -> Iterator[Point]:
    broker = stores.get("CELERY_BROKER_URL")
    lost = ""
    if broker is not None and not broker.is_file:
        lost = f"tasks that wait in {_name(broker)} are gone when the host is started anew"
    elif broker is not None and broker.options.durability == "process":
        lost = f"durability=process of {_name(broker)}: a crash of the host takes tasks with it"
    elif str(_celery("BROKER_URL") or "").startswith("memory:"):
        lost = "CELERY_BROKER_URL is a memory of one process"
    yield Point(
        "persistence",
        "broker.durable",
        lost,
        "celeriac+file:///var/lib/app?durability=everysec (or always)",
    )
    if _celery("BROKER_URL"):
        early = [
            f"CELERY_{name}"
            for name in ("TASK_ACKS_LATE", "TASK_REJECT_ON_WORKER_LOST")
            if not _celery(name)
        ]
        yield Point(
            "persistence",
            "celery.acks_late",
            f"without {' and '.join(early)} a task is lost with its worker" if early else "",
            "True, where a task may run twice",
        )
    only_cached = settings.SESSION_ENGINE == "django.contrib.sessions.backends.cache"
    yield Point(
        "persistence",
        "sessions.durable",
        "SESSION_ENGINE has sessions in the cache alone: evicted, and gone with it"
        if only_cached
        else "",
        "django.contrib.sessions.backends.cached_db",
    )


def _of_backups(stores: dict[str, StoreURL], directory: Path | None) -> Iterator[Point]:
    kept = sorted({url.name for url in stores.values() if url.is_file})
    found = ""
    if kept and directory is None:
        found = f"nothing is known of backups of {', '.join(kept)}"
    elif kept and directory is not None:
        ages = [time.time() - path.stat().st_mtime for path in directory.glob("*.backup")]
        if not ages:
            found = f"no backup (*.backup) in {directory}"
        elif min(ages) > BACKUP_AGE:
            found = f"the latest backup in {directory} is {min(ages) / 3600:.0f} hours old"
    yield Point(
        "backups",
        "backups.recent",
        found,
        "enable celeriac-backup.timer, which celeriac monitoring write writes; name its directory "
        "by --backups",
    )


def _of_alerts(directory: Path | None) -> Iterator[Point]:
    found = ""
    if directory is None:
        found = "nothing is known of alerts: nobody may be told when something breaks"
    else:
        config = directory / "alertmanager" / "alertmanager.yml"
        if not (directory / "prometheus" / "rules" / "alerts.yml").is_file():
            found = f"no prometheus/rules/alerts.yml in {directory}"
        elif not config.is_file():
            found = f"no alertmanager/alertmanager.yml in {directory}"
        elif UNSET_WEBHOOK in config.read_text(encoding="utf-8"):
            found = f"{config} sends alerts to {UNSET_WEBHOOK}, its default"
    yield Point(
        "alerts",
        "alerts.sent",
        found,
        "celeriac monitoring write DIR --webhook URL; name DIR by --monitoring",
    )
