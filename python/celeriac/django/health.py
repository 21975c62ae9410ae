"""`health/cache`: whether the store of this project can be used, now and from this process.

200 `{"status": "ok"}` when a value could be written and read back, else 503 with the reason, as
JSON, or as a line of text for those who accept text only. Nothing of the settings is told.
"""

from __future__ import annotations

import secrets
from typing import Any

from django.core.cache import InvalidCacheBackendError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from celeriac.django import conf
from celeriac.errors import CeleriacError
from celeriac.store import Store

__all__ = ["UNUSABLE", "health", "reason_of", "try_out"]

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


@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """The view; see above."""
    told: dict[str, Any] = {"status": "ok"}
    try:
        try_out(conf.store())
    except UNUSABLE as error:
        told = {"status": "unusable", "reason": reason_of(error)}
    code = 200 if told["status"] == "ok" else 503
    response: HttpResponse
    if _wants_text(request):
        text = ": ".join(told.values())
        response = HttpResponse(f"{text}\n", status=code, content_type="text/plain; charset=utf-8")
    else:
        response = JsonResponse(told, status=code)
    response.headers["Cache-Control"] = "no-store"
    return response


health.login_required = False


def _wants_text(request: HttpRequest) -> bool:
    accepted = str(request.META.get("HTTP_ACCEPT", ""))
    named = {each.split(";")[0].strip().lower() for each in accepted.split(",")}
    return "text/plain" in named and not named & {"application/json", "*/*", "text/html"}
