"""What the pages show, read from the database, and the cache in front of it.

Cache-aside by hand, as most Django projects do it: look in the cache, else read the database and
store what was read; whoever changes a product deletes the entries that show it. `Page.hit` says
where a page came from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from django.core.cache import cache
from django.db.models import Sum

from . import reports
from .models import Order, Product

PAGE_SIZE = 100
PRODUCT_TTL = 15 * 60
LIST_TTL = 15 * 60
REPORT_TTL = 5 * 60


class Page(NamedTuple):
    """A page's content and whether the cache had it."""

    content: dict[str, Any]
    hit: bool


def product_detail(pk: int) -> Page:
    """One product; raises `Product.DoesNotExist`."""
    return _cached(f"product:{pk}", PRODUCT_TTL, lambda: _read_product(pk))


def product_list(number: int) -> Page:
    """Page `number` of the catalogue, counted from 1."""
    return _cached(f"products:page:{number}", LIST_TTL, lambda: _read_list(number))


def sold_one_by_one(count: int) -> dict[str, int]:
    """How often each of the first `count` products was sold, asked for one after the other."""
    return {str(product): product.orders.count() for product in Product.objects.all()[:count]}


def report(days: int) -> Page:
    """The sales figures of the last `days` days."""
    return _cached(f"report:{days}", REPORT_TTL, lambda: reports.sales(days))


def refresh_report(days: int) -> None:
    """Compute the figures anew and store them for everyone."""
    cache.set(f"report:{days}", reports.sales(days), REPORT_TTL)


def forget_product(pk: int) -> None:
    """Drop what shows this product: its own page and its page of the catalogue."""
    cache.delete_many([f"product:{pk}", f"products:page:{(pk - 1) // PAGE_SIZE + 1}"])


def _cached(key: str, ttl: int, read: Callable[[], dict[str, Any]]) -> Page:
    content = cache.get(key)
    if content is not None:
        return Page(content, hit=True)
    content = read()
    cache.set(key, content, ttl)
    return Page(content, hit=False)


def _read_product(pk: int) -> dict[str, Any]:
    product = Product.objects.get(pk=pk)
    sold = Order.objects.filter(product=product).aggregate(n=Sum("quantity"))["n"] or 0
    similar = Product.objects.filter(category=product.category).exclude(pk=pk)[:4]
    return {
        **_item(product),
        "stock": product.stock,
        "version": product.version,
        "sold": sold,
        "similar": [_item(other) for other in similar],
    }


def _read_list(number: int) -> dict[str, Any]:
    first = (number - 1) * PAGE_SIZE
    return {
        "page": number,
        "products": [
            _item(product) for product in Product.objects.all()[first : first + PAGE_SIZE]
        ],
    }


def _item(product: Product) -> dict[str, Any]:
    return {
        "id": product.pk,
        "name": product.name,
        "category": product.category,
        "price": f"{product.price_cents / 100:.2f}",
    }
