"""The payment provider tells of its orders here, and wants an answer at once."""

from __future__ import annotations

import hashlib
import hmac
import json

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from . import tasks

ANALYTICS_EVERY = 25


def sign(body: bytes) -> str:
    """The signature that the provider sends with `body`."""
    return hmac.new(settings.WEBHOOK_SECRET.encode(), body, hashlib.sha256).hexdigest()


@csrf_exempt
@require_POST
def order_event(request: HttpRequest) -> HttpResponse:
    """Check who sent it, queue the work, answer with the ids of the tasks that now must happen."""
    if not hmac.compare_digest(sign(request.body), request.headers.get("X-Signature", "")):
        return JsonResponse({"error": "wrong signature"}, status=403)
    event = json.loads(request.body)
    sent = [tasks.handle_event.delay(event), tasks.notify_customer.delay(event)]
    if event["id"] % ANALYTICS_EVERY == 0:
        sent.append(tasks.refresh_analytics.delay(event["id"]))
    return JsonResponse({"tasks": [result.id for result in sent]}, status=202)
