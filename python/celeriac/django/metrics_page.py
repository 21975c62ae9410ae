"""`metrics`: what Prometheus reads: the metrics of all processes, and the store's own statistics.

The text format, or OpenMetrics for those who accept it. While the store can't be used it says
`celeriac_up 0` and nothing else, with status 200: a scrape that failed would not tell which it was.
Whoever may ask for it sees names of caches and queues: let the proxy in front keep others out.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from celeriac.django import conf
from celeriac.django.health import UNUSABLE
from celeriac.django.rate_limits import UNLIMITED
from celeriac.own_metrics import FAMILIES

__all__ = ["metrics"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """The view; see above."""
    openmetrics = "application/openmetrics-text" in str(request.META.get("HTTP_ACCEPT", ""))
    try:
        body = conf.store().metrics.exposition(openmetrics, own=True)
    except UNUSABLE:
        kind, said, _ = FAMILIES["celeriac_up"]
        text = f"# HELP celeriac_up {said}\n# TYPE celeriac_up {kind}\nceleriac_up 0.0\n"
        body = (text + ("# EOF\n" if openmetrics else "")).encode()
    response = HttpResponse(body, content_type=OPENMETRICS if openmetrics else TEXT)
    response.headers["Cache-Control"] = "no-store"
    return response


metrics.login_required = False  # for LoginRequiredMiddleware
setattr(metrics, UNLIMITED, True)
