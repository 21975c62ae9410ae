"""The page `admin/cache/stats`: to look, for staff with `view_stats`; to act, with `change_stats`.

- `GET` shows the page; with `?live` it is the JSON that `static/celeriac/stats.js` asks for
- `POST` does one of :mod:`celeriac.django.actions`, notes it in the admin's log, and leads back

While the store can't be used the page says why, with status 503.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.views.decorators.http import require_http_methods

from celeriac.django import actions, conf, overview
from celeriac.django.health import UNUSABLE, reason_of
from celeriac.django.models import Stats
from celeriac.django.sparklines import HEIGHT, WIDTH

__all__ = ["page_of"]

_VIEW, _CHANGE = "celeriac_django.view_stats", "celeriac_django.change_stats"


def page_of(site: Any) -> Callable[[HttpRequest], HttpResponse]:
    """The view, for an admin site; its `admin_view` asks for staff and a CSRF token."""

    def stats(request: HttpRequest) -> HttpResponse:
        user = request.user
        may_act = user.has_perm(_CHANGE)
        if not (may_act or user.has_perm(_VIEW)):
            raise PermissionDenied
        if request.method == "POST":
            if not may_act:
                raise PermissionDenied
            return _act(request)
        return _live() if "live" in request.GET else _show(site, request, may_act)

    view: Callable[[HttpRequest], HttpResponse]
    view = require_http_methods(["GET", "HEAD", "POST"])(stats)
    return view


def _live() -> HttpResponse:
    try:
        return JsonResponse(overview.live(conf.store()))
    except UNUSABLE as error:
        return JsonResponse({"reason": reason_of(error)}, status=503)


def _show(site: Any, request: HttpRequest, may_act: bool) -> HttpResponse:
    context = {**site.each_context(request), "title": "Cache and queues", "may_act": may_act}
    code = 200
    try:
        store = conf.store()
        now = overview.live(store)
        context |= overview.tables(store)
    except UNUSABLE as error:
        context["reason"], code = reason_of(error), 503
    else:
        texts = now["texts"]
        context["tiles"] = [
            {"name": name, "title": title, "text": texts[name], "more": texts[f"{name}-more"],
             "points": now["lines"][name]}
            for name, title in overview.TITLES.items()
        ]  # fmt: skip
        for queue in context["queues"]:
            queue["cells"] = [
                (column, texts.get(f"queue-{queue['place']}-{column}", ""))
                for column in _QUEUE_COLUMNS
            ]
        context |= {"queue_columns": _QUEUE_COLUMNS.values(), "width": WIDTH, "height": HEIGHT}
    request.current_app = site.name
    return TemplateResponse(request, "celeriac/stats.html", context, status=code)


_QUEUE_COLUMNS = {
    "ready": "Ready",
    "delayed": "Delayed",
    "reserved": "Reserved",
    "dead": "Dead",
    "done": "Done",
    "oldest": "Oldest",
    "put": "Put/s",
    "done-rate": "Done/s",
    "consumers": "Consumers",
    "state": "State",
}


def _act(request: HttpRequest) -> HttpResponse:
    act = actions.ACTIONS.get(request.POST.get("action", ""))
    if act is None:
        messages.error(request, "Nothing was done: unknown action.")
        return HttpResponseRedirect(request.path)
    try:
        done = act(conf.store(), request.POST)
    except actions.Refused as error:
        messages.error(request, f"Nothing was done: {error}.")
    except UNUSABLE as error:
        messages.error(request, f"It failed: {reason_of(error)}")
    else:
        user = request.user
        LogEntry.objects.create(
            user_id=user.pk,
            content_type=ContentType.objects.get_for_model(Stats),
            object_id="",
            object_repr=done[:200],
            action_flag=CHANGE,
            change_message=done,
        )
        messages.success(request, done)
    return HttpResponseRedirect(request.path)
