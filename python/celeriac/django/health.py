"""`health/cache`, `livez`, `readyz`: for load balancers, orchestrators and people with curl.

- `health/cache`: whether the store of this project can be used, now and from this process: a value
  is written and read back
- `livez`: this process answers; it asks for nothing else, so that nobody restarts it for what a
  restart doesn't mend
- `readyz`: the store and the database `default` can be used, so that requests can be sent here

200 `{"status": "ok"}`, else 503 with the reason; JSON, or a line of text for those who accept text
only. Nothing of the settings is told: of a database's error the kind alone, since its text names
hosts and users.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from django.core.cache import InvalidCacheBackendError
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from celeriac.django import conf
from celeriac.django.rate_limits import UNLIMITED
from celeriac.errors import CeleriacError
from celeriac.store import Store

__all__ = ["UNUSABLE", "health", "livez", "readyz", "reason_of", "try_out"]

#: What a store that is away, full or damaged raises; an OSError, where its directory is.
UNUSABLE = (CeleriacError, InvalidCacheBackendError, OSError)

_CACHE, _SECONDS = "celeriac.health", 10.0


def reason_of(error: BaseException) -> str:
    """The error in one line; its kind is the name of one of celeriac's exceptions."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def try_out(store: Store) -> None:
    """Write a value, read it back and remove it.

    Raises:
        CeleriacError: the store can't be used.
    """
    cache = store.cache(_CACHE, ttl=_SECONDS)
    key = value = secrets.token_hex(8)
    cache.set(key, value)
    found = cache.get(key)
    cache.delete(key)
    if found != value:
        raise CeleriacError("a value that was written could not be read back")


def _store_fails() -> str | None:
    try:
        try_out(conf.store())
    except UNUSABLE as error:
        return reason_of(error)
    return None


def _database_fails() -> str | None:
    connection = connections["default"]
    if connection.vendor == "unknown":  # this project has none
        return None
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError as error:
        return f"the database 'default': {type(error).__name__}"
    return None


def _view(*tests: Callable[[], str | None]) -> Callable[[HttpRequest], HttpResponse]:
    """A view that says the first reason that one of the tests has."""

    def answer(request: HttpRequest) -> HttpResponse:
        reason = next((found for test in tests if (found := test()) is not None), None)
        told = {"status": "ok"} if reason is None else {"status": "unusable", "reason": reason}
        code = 200 if reason is None else 503
        response: HttpResponse
        if _wants_text(request):
            text = ": ".join(told.values())
            kind = "text/plain; charset=utf-8"
            response = HttpResponse(f"{text}\n", status=code, content_type=kind)
        else:
            response = JsonResponse(told, status=code)
        response.headers["Cache-Control"] = "no-store"
        return response

    view: Callable[[HttpRequest], HttpResponse] = require_safe(answer)
    view.login_required = False  # type: ignore[attr-defined]  # for LoginRequiredMiddleware
    setattr(view, UNLIMITED, True)
    return view


def _wants_text(request: HttpRequest) -> bool:
    accepted = str(request.META.get("HTTP_ACCEPT", ""))
    named = {each.split(";")[0].strip().lower() for each in accepted.split(",")}
    return "text/plain" in named and not named & {"application/json", "*/*", "text/html"}


health = _view(_store_fails)
livez = _view()
readyz = _view(_store_fails, _database_fails)
