"""A site behind RequestStatsMiddleware, run as a program.

    stats_site.py LOCATION CELERIAC-AS-JSON

Asks for its pages, synchronously and asynchronously, and prints as JSON what came.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import celery
import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.cache import cache
from django.core.exceptions import MiddlewareNotUsed
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path

LOCATION, CELERIAC = sys.argv[1:]

settings.configure(
    SECRET_KEY="no secret: these are tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    DEBUG=False,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    INSTALLED_APPS=["celeriac.django"],
    CACHES={
        "default": {
            "BACKEND": "celeriac.django.cache.CeleriacCache",
            "LOCATION": LOCATION,
            "OPTIONS": {"create": "closed" not in LOCATION},
        }
    },
    CELERIAC=json.loads(CELERIAC),
    MIDDLEWARE=["celeriac.django.middleware.RequestStatsMiddleware"],
)
tasks = celery.Celery("site", broker="memory://", set_as_current=False)
django.setup()

said: list[tuple[str, str, str]] = []


class Listener(logging.Handler):
    """Keeps what is logged, and for which request."""

    def emit(self, record: logging.LogRecord) -> None:
        said.append((record.name, record.getMessage(), record.request_id))


logging.getLogger("site").addHandler(Listener())
logging.getLogger("site").setLevel("INFO")
logging.getLogger("celeriac.django.slow").addHandler(Listener())
logging.getLogger("celeriac.django.slow").propagate = False


def query(times: int) -> None:
    with connection.cursor() as cursor:
        for _ in range(times):
            cursor.execute("SELECT 1")


def read(hits: int, misses: int) -> None:
    cache.set("there", 1)
    for _ in range(hits):
        cache.get("there")
    cache.get_many([f"away {number}" for number in range(misses)])


def page(request: HttpRequest) -> HttpResponse:
    logging.getLogger("site").info("in the view")
    query(int(request.GET.get("queries", 0)))
    read(int(request.GET.get("hits", 0)), int(request.GET.get("misses", 0)))
    return HttpResponse(request.request_id)  # type: ignore[attr-defined]


async def async_page(request: HttpRequest) -> HttpResponse:
    hits, misses = int(request.GET["hits"]), int(request.GET["misses"])
    await cache.aset("there", 1)
    for _ in range(hits):
        await cache.aget("there")
        await asyncio.sleep(0.001)  # the other requests' turn
    await sync_to_async(query)(hits)
    await asyncio.gather(*(cache.aget(f"away {number}") for number in range(misses)))
    return HttpResponse(request.request_id)  # type: ignore[attr-defined]


def threads(request: HttpRequest) -> HttpResponse:
    """A view that spreads its work over threads, with its context."""
    with ThreadPoolExecutor(4) as pool:
        for _ in range(8):
            pool.submit(copy_context().run, cache.get, "away").result()
    return HttpResponse()


def slow(request: HttpRequest) -> HttpResponse:
    time.sleep(0.03)
    return HttpResponse(status=201)


def sends(request: HttpRequest) -> HttpResponse:
    tasks.send_task("anything", (1,))
    with tasks.connection_for_read() as broker:
        message = broker.SimpleQueue("celery").get(timeout=5)
        message.ack()
    return HttpResponse(message.headers.get("request_id", "none"))


def own(request: HttpRequest) -> HttpResponse:
    return HttpResponse(headers={"X-Request-ID": "the view's", "X-Cache-Hits": "many"})


def fails(request: HttpRequest) -> HttpResponse:
    raise ValueError("as asked")


def streams(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter([b"a", b"b"]))


def each(view: Callable[..., Any]) -> Any:
    return path(view.__name__, view, name=view.__name__)


urlpatterns = [*map(each, (page, async_page, threads, slow, sends, own, fails, streams))]


def shown(response: Any) -> dict[str, Any]:
    body = b"" if response.streaming else response.content
    return {"body": body.decode(), "status": response.status_code, **response.headers}


async def at_once() -> list[dict[str, Any]]:
    async def ask(number: int) -> dict[str, Any]:
        query = f"hits={number}&misses={2 * number}"
        headers = {"X-Request-ID": f"request-{number}"}
        return shown(await AsyncClient().get(f"/async_page?{query}", headers=headers))

    return await asyncio.gather(*map(ask, range(8)))


def ask(where: str, **headers: str) -> dict[str, Any]:
    client = Client(raise_request_exception=False)
    return shown(client.get(where, headers={k.replace("_", "-"): v for k, v in headers.items()}))


def everything() -> dict[str, Any]:
    from celeriac import request_id
    from celeriac.django import conf, slow_requests

    found: dict[str, Any] = {
        "counted": ask("/page?queries=3&hits=2&misses=5"),
        "again": ask("/page?queries=1"),
        "accepted": ask("/page", X_Request_ID="abc-DEF/1.2"),
        "insane": [ask("/page", X_Request_ID=each) for each in ("", "a b", "x" * 201, "é", 'a"b')],
        "threads": ask("/threads"),
        "slow": ask("/slow", X_Request_ID="slow-one"),
        "many queries": ask("/page?queries=21"),
        "sends": ask("/sends", X_Request_ID="for-the-task"),
        "own": ask("/own"),
        "fails": ask("/fails"),
        "streams": ask("/streams"),
        "missing": ask("/nowhere"),
        "at once": asyncio.run(at_once()),
        "afterwards": request_id.current(),
        "said": said,
    }
    if "closed" not in LOCATION:
        store = conf.store()
        found["kept"] = [request._asdict() for request in slow_requests.latest(store)]
        slow_requests.forget(store)
        found["forgotten"] = len(slow_requests.latest(store))
    return found


try:
    print(json.dumps(everything()))
except MiddlewareNotUsed:
    sys.exit("not used")
