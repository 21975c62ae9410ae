"""What a client is told about rate limits: header fields, and the answer 429.

``RateLimit`` and ``RateLimit-Policy`` are those of the IETF's draft "RateLimit header fields for
HTTP" (draft-ietf-httpapi-ratelimit-headers-10), ``Retry-After`` is RFC 9110's, and the JSON body
RFC 9457's problem with the draft's type for it.
"""

from __future__ import annotations

import json
import math

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template import TemplateDoesNotExist, loader

from celeriac.limits import Decision

__all__ = ["add_headers", "too_many"]

PROBLEM = "https://iana.org/assignments/http-problem-types#quota-exceeded"


def add_headers(response: HttpResponseBase, policy: str, decision: Decision) -> None:
    """Tell of a decision; nothing where the view has told of one itself.

    :param policy: the name of the limit, such as the client's role.
    """
    headers = response.headers
    if "RateLimit" in headers:
        return
    rate = decision.policy
    name = policy.replace("\\", "\\\\").replace('"', '\\"')
    amount, period = getattr(rate, "amount", decision.limit), getattr(rate, "period", 1.0)
    headers["RateLimit-Policy"] = f'"{name}";q={amount};w={max(round(period), 1)}'
    until = decision.retry_after if not decision.remaining else decision.reset_after
    headers["RateLimit"] = f'"{name}";r={decision.remaining};t={math.ceil(until)}'


def too_many(request: HttpRequest, policy: str, decision: Decision) -> HttpResponse:
    """The answer 429: a problem in JSON where the client takes that, else the template
    ``429.html``, else a line of text."""
    seconds = max(math.ceil(decision.retry_after), 1)
    detail = f"The limit {decision.policy} is used up. Try again in {seconds} s."
    response: HttpResponse
    if _wants_json(request):
        problem = {
            "type": PROBLEM,
            "title": "Too Many Requests",
            "status": 429,
            "detail": detail,
            "violated-policies": [policy],
        }
        response = HttpResponse(json.dumps(problem), content_type="application/problem+json")
    else:
        try:
            text = loader.render_to_string("429.html", {"retry_after": seconds}, request)
            response = HttpResponse(text)
        except TemplateDoesNotExist:
            response = HttpResponse(f"Too Many Requests. {detail}\n", content_type="text/plain")
    response.status_code = 429
    response.headers["Retry-After"] = str(seconds)
    response.headers["Cache-Control"] = "no-store"
    add_headers(response, policy, decision)
    return response


def _wants_json(request: HttpRequest) -> bool:
    """Whether the client names JSON; one that takes anything (``*/*``) is a person's or curl's."""
    accepted = str(request.META.get("HTTP_ACCEPT", ""))
    return any(
        each.split(";")[0].strip().lower() in ("application/json", "application/problem+json")
        for each in accepted.split(",")
    )
