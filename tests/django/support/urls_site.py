"""Sites with `celeriac.django.urls` in places and company of all kinds, run as a program.

    urls_site.py LOCATION OPTIONS-AS-JSON SCENARIO

Prints as JSON what the scenario's visits got.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from admin_site import configure
from django.test import Client
from django.urls import include, path

LOCATION, OPTIONS, SCENARIO = sys.argv[1:]
PAGE = "/admin/cache/stats"
CACHES = {
    "default": {
        "BACKEND": "celeriac.django.cache.CeleriacCache",
        "LOCATION": LOCATION,
        "OPTIONS": json.loads(OPTIONS),
    }
}
urlpatterns: list[Any] = []


def shown(response: Any) -> dict[str, Any]:
    return {
        "status": response.status_code,
        "type": response.headers.get("Content-Type"),
        "cached": response.headers.get("Cache-Control"),
        "body": response.content.decode(),
    }


def site(**more: Any) -> None:
    configure(LOCATION, ":memory:", ROOT_URLCONF=__name__, **{"CACHES": CACHES, **more})


def boss() -> Client:
    client = Client()
    client.login(username="boss", password="boss")
    return client


def ours(at: str = "") -> Any:
    return path(at, include("celeriac.django.urls"))


def health(**more: Any) -> Any:
    site(**more)
    urlpatterns.append(ours())
    url, client = "/health/cache", Client()
    return {
        "json": shown(client.get(url)),
        "again": shown(client.get(url))["status"],
        "text": shown(client.get(url, headers={"accept": "text/plain"})),
        "browser": shown(client.get(url, headers={"accept": "text/html,text/plain,*/*"})),
        "head": shown(client.head(url)),
        "post": shown(client.post(url))["status"],
        "livez": shown(client.get("/livez")),
        "readyz": shown(client.get("/readyz")),
        "page": shown(client.get(PAGE)),
    }


def metrics() -> Any:
    from django.core.cache import cache

    site()
    urlpatterns.append(ours())
    client = Client()
    if CACHES["default"]["OPTIONS"].get("create", True):
        cache.set("k", 1)
        cache.get("k")
        cache.store.queue("mail").put("m")
        cache.store.metrics.counter("orders", "Orders.", ("kind",)).labels("large").inc(3)
    accepts = {"accept": "application/openmetrics-text; version=1.0.0,text/plain;q=0.5"}
    return {
        "text": shown(client.get("/metrics")),
        "openmetrics": shown(client.get("/metrics", headers=accepts)),
        "post": shown(client.post("/metrics"))["status"],
        "often": [client.get("/metrics").status_code for _ in range(5)],
    }


def database_away() -> Any:
    from django.db import connection

    site()
    urlpatterns.append(ours())
    connection.settings_dict["NAME"] = "/dev/null/secret"  # what is in memory isn't closed
    connection.close()
    return [shown(Client().get(f"/{name}")) for name in ("livez", "readyz", "health/cache")]


def page() -> Any:
    from django.contrib import admin

    site()
    urlpatterns.extend([path("admin/", admin.site.urls), ours()])
    client = boss()
    form = {"action": "retry", "queue": "mail"}
    return {
        "page": shown(client.get(PAGE)),
        "live": shown(client.get(f"{PAGE}?live")),
        "post": shown(client.post(PAGE, form, follow=True)),
        "log": _logged(),
    }


def _logged() -> int:
    from django.contrib.admin.models import LogEntry

    return LogEntry.objects.count()


def places() -> Any:
    """The page, whatever stands where; with what the admin's index links to."""
    from django.contrib import admin
    from django.urls import clear_url_caches

    site()
    found = {}
    for name, urls in {
        "before": [ours(), path("admin/", admin.site.urls)],
        "behind": [path("admin/", admin.site.urls), ours()],
        "admin alone": [path("admin/", admin.site.urls)],
        "elsewhere": [path("manage/", admin.site.urls), ours()],
    }.items():
        urlpatterns[:] = urls
        clear_url_caches()
        client = boss()
        at = "/manage/" if name == "elsewhere" else "/admin/"
        found[name] = {
            "page": client.get(PAGE).status_code,
            "stranger": Client().get(PAGE).headers.get("Location"),
            "below": client.get(f"{at}cache/stats").status_code,
            "index": f'href="{at}cache/stats"' in client.get(at).content.decode(),
        }
    urlpatterns[:] = [ours()]
    clear_url_caches()
    found["none"] = {"page": Client().get(PAGE).status_code}
    return found


def own_admin() -> Any:
    """A site of admins that isn't the default one."""
    site()
    from django.contrib.admin import AdminSite

    from celeriac.django.admin import add_to

    own = AdminSite(name="own")
    add_to(own)
    urlpatterns.append(path("own/", own.urls))
    client = boss()
    return [client.get("/own/cache/stats").status_code, client.get("/own/").content.decode()]


def without_apps() -> Any:
    from django.conf import settings

    settings.configure(
        ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], CACHES=CACHES, SECRET_KEY="no secret: tests"
    )
    import django

    django.setup()
    urlpatterns.append(ours("ops/"))
    return {
        "health": shown(Client().get("/ops/health/cache")),
        "page": Client().get("/ops/admin/cache/stats").status_code,
        "readyz": Client().get("/ops/readyz").status_code,
    }


LOGIN = "django.contrib.auth.middleware.LoginRequiredMiddleware"
SCENARIOS: dict[str, Any] = {
    "health": health,
    "health behind logins": lambda: health(
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            LOGIN,
        ]
    ),
    "no store": lambda: health(
        CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    ),
    "database away": database_away,
    "metrics": metrics,
    "page": page,
    "places": places,
    "own admin": own_admin,
    "without apps": without_apps,
}
print(json.dumps(SCENARIOS[SCENARIO]()))
