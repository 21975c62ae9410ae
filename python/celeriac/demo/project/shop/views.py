"""The shop's pages, as JSON.

Two headers are there for the demo's load driver: `X-Demo-Cache: hit|miss` and `X-Demo-Version`,
the version of the product that the page shows.
"""

from __future__ import annotations

import os

from django.contrib.auth import authenticate, login
from django.db import transaction
from django.db.models import F
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET, require_POST

from . import pages, reports
from .models import Product


@require_GET
def health(request: HttpRequest) -> HttpResponse:
    """Say which process answers."""
    return JsonResponse({"pid": os.getpid()})


@require_GET
def product_list(request: HttpRequest) -> HttpResponse:
    """100 products, cached for 15 minutes or until one of them changes."""
    number = request.GET.get("page", "1")
    if not number.isdecimal() or int(number) < 1:
        return JsonResponse({"error": "page is a number from 1"}, status=400)
    return _answer(request, pages.product_list(int(number)))


@require_GET
def product_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One product, cache-aside."""
    try:
        page = pages.product_detail(pk)
    except Product.DoesNotExist:
        return JsonResponse({"error": "no such product"}, status=404)
    response = _answer(request, page)
    response["X-Demo-Version"] = str(page.content["version"])
    return response


@require_GET
def bestsellers(request: HttpRequest) -> HttpResponse:
    """Written as such pages often are: not cached, and with a query for each of its products."""
    return JsonResponse({"sold": pages.sold_one_by_one(25)})


@require_GET
def analytics(request: HttpRequest) -> HttpResponse:
    """The sales figures, cached for 5 minutes."""
    days = request.GET.get("days", "7")
    if days not in map(str, reports.PERIODS):
        return JsonResponse({"error": f"days is one of {reports.PERIODS}"}, status=400)
    return _answer(request, pages.report(int(days)))


@require_POST
def log_in(request: HttpRequest) -> HttpResponse:
    """Start a session; it lives in the database and is read from the cache."""
    name = request.POST.get("username", "")
    user = authenticate(request, username=name, password=request.POST.get("password", ""))
    if user is None:
        return JsonResponse({"error": "wrong name or password"}, status=403)
    login(request, user)
    request.session["visitor"] = name
    return JsonResponse({"visitor": name})


@require_POST
def change_price(request: HttpRequest, pk: int) -> HttpResponse:
    """Set a product's price, and drop the cached pages that show it once that is committed."""
    if "visitor" not in request.session:
        return JsonResponse({"error": "log in first"}, status=403)
    price = request.POST.get("cents", "")
    if not price.isdecimal():
        return JsonResponse({"error": "cents is a number"}, status=400)
    product = Product.objects.filter(pk=pk)
    with transaction.atomic():
        if not product.update(price_cents=int(price), version=F("version") + 1):
            return JsonResponse({"error": "no such product"}, status=404)
        version = product.values_list("version", flat=True).get()
        transaction.on_commit(lambda: pages.forget_product(pk))
    return JsonResponse({"id": pk, "version": version}, headers={"X-Demo-Version": str(version)})


def _answer(request: HttpRequest, page: pages.Page) -> HttpResponse:
    visitor = request.session.get("visitor")
    return JsonResponse(
        {"visitor": visitor, **page.content},
        headers={"X-Demo-Cache": "hit" if page.hit else "miss"},
    )
