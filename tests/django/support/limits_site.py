"""A site behind RateLimitMiddleware, run as a program.

    limits_site.py LOCATION CELERIAC-AS-JSON SCENARIO

Prints as JSON what the scenario's requests got.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import path

LOCATION, CELERIAC, SCENARIO = sys.argv[1:]

settings.configure(
    SECRET_KEY="no secret: these are tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "celeriac.django",
    ],
    CACHES={
        "default": {
            "BACKEND": "celeriac.django.cache.CeleriacCache",
            "LOCATION": LOCATION,
            "OPTIONS": {"create": "closed" not in LOCATION},
        }
    },
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    CELERIAC=json.loads(CELERIAC),
    MIDDLEWARE=[
        "celeriac.django.middleware.RequestStatsMiddleware",
        "celeriac.django.middleware.RateLimitMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    USE_TZ=True,
)
django.setup()

import celeriac  # noqa: E402 - after the settings
from celeriac.django import ratelimit  # noqa: E402 - after the settings


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


async def async_page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


@ratelimit("2/min", key="ip")
def decorated(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


@ratelimit(["2/min", "100/hour"], key="user", methods=["POST"])
async def posted(request: HttpRequest) -> HttpResponse:
    return HttpResponse("page")


@ratelimit("1/min", key=lambda request: request.GET.get("key"), block=False)
def soft(request: HttpRequest) -> HttpResponse:
    return HttpResponse("limited" if request.limited else "page")  # type: ignore[attr-defined]


def tenant(request: HttpRequest) -> tuple[str, str]:
    """For RATE_LIMIT_ROLE."""
    return "guest", request.headers.get("X-Tenant", "nobody")


def wrong_role(request: HttpRequest) -> Any:
    """For RATE_LIMIT_ROLE: what a bug may return."""
    return {"guset": "guset", "5": 5, "list": ["guest"]}[request.headers["X-Tenant"]]


urlpatterns = [
    path(name, view)
    for name, view in (
        ("page", page),
        ("async_page", async_page),
        ("health/live", page),
        ("decorated", decorated),
        ("posted", posted),
        ("soft", soft),
    )
]


def shown(response: Any) -> dict[str, Any]:
    return {
        "status": response.status_code,
        "body": response.content.decode(),
        **{name: value for name, value in response.headers.items() if not name.startswith("X-")},
    }


def get(where: str, times: int = 1, method: str = "get", **given: Any) -> list[dict[str, Any]]:
    client = given.pop("client", None) or Client()
    return [shown(getattr(client, method)(where, **given)) for _ in range(times)]


def statuses(*given: Any, **named: Any) -> list[int]:
    return [answer["status"] for answer in get(*given, **named)]


def by_address() -> Any:
    return {
        "one": get("/page", 4, REMOTE_ADDR="192.0.2.1"),
        "another": statuses("/page", REMOTE_ADDR="192.0.2.2"),
        "json": get("/page", REMOTE_ADDR="192.0.2.1", headers={"accept": "application/json"}),
        "exempt": statuses("/health/live", 5, REMOTE_ADDR="192.0.2.1"),
        "missing": statuses("/nowhere", REMOTE_ADDR="192.0.2.1"),
    }


def behind_proxies() -> Any:
    def through(peer: str, forwarded: str) -> int:
        return statuses(
            "/page", REMOTE_ADDR=peer, headers={"x-forwarded-for": forwarded} if forwarded else {}
        )[0]

    return {
        "first": through("10.0.0.1", "198.51.100.1"),
        "same, other proxies": through("10.0.0.2", "198.51.100.1, 10.0.0.9"),
        "invented before it": through("10.0.0.1", "203.0.113.5, 198.51.100.1"),
        "another": through("10.0.0.1", "198.51.100.2"),
        "not a proxy": through("192.0.2.9", "198.51.100.77"),
        "nor the second time": through("192.0.2.9", "198.51.100.78"),
        "third": through("192.0.2.9", "198.51.100.79"),
        "nonsense": [through("10.0.0.3", "no address") for _ in range(3)],
        "v6": [through("10.0.0.1", f"2001:db8:1:2::{number}") for number in ("1", "2", "ffff")],
    }


def by_role() -> Any:
    from django.contrib.auth.models import Group, User
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    call_command("migrate", verbosity=0)
    manager = Group.objects.create(name="manager")
    found: dict[str, Any] = {}
    for name, flags in (
        ("root", {"is_superuser": True, "is_staff": True}),
        ("boss", {"is_staff": True}),
        ("clerk", {"is_staff": True}),
        ("somebody", {}),
    ):
        user = User.objects.create(username=name, **flags)
        if name == "boss":
            user.groups.add(manager)
        client = Client()
        client.force_login(user)
        answers = get("/page", 6, client=client)
        found[name] = [answers[0].get("RateLimit-Policy"), [a["status"] for a in answers]]
        with CaptureQueriesContext(connection) as queries:
            get("/page", client=client)
        found[f"{name} asks for groups"] = sum("auth_group" in q["sql"] for q in queries)
    return found


async def async_requests() -> Any:
    client = AsyncClient()
    return {
        "page": [(await client.get("/async_page")).status_code for _ in range(4)],
        "sync view": [(await client.get("/page")).status_code for _ in range(1)],
        "posted": [(await client.post("/posted")).status_code for _ in range(3)],
        "got": [(await client.get("/posted")).status_code for _ in range(1)],
    }


def raised(role: str) -> str:
    try:
        return str(statuses("/page", headers={"x-tenant": role}))
    except celeriac.ConfigurationError as error:
        return str(error)


SCENARIOS: dict[str, Any] = {
    "by_address": by_address,
    "behind_proxies": behind_proxies,
    "by_role": by_role,
    "async": lambda: asyncio.run(async_requests()),
    "decorated": lambda: {
        "decorated": get("/decorated", 3),
        "soft": [answer["body"] for answer in get("/soft?key=a", 2) + get("/soft", 2)],
        "posted": statuses("/posted", 3, "post"),
        "got": statuses("/posted", 3),
    },
    "three": lambda: get("/page", 3),
    "unknown role": lambda: statuses("/page", 6, headers={"x-tenant": "guset"}),
    "no role": lambda: [raised(name) for name in ("5", "list")],
    "tenants": lambda: {
        name: statuses("/page", 3, headers={"x-tenant": name}) for name in ("a", "b")
    },
}
print(json.dumps(SCENARIOS[SCENARIO]()))
