"""The sales figures: aggregates over the orders, too slow to compute for each request."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db.models import Count, Max, Sum
from django.db.models.functions import TruncDate

from .models import Order

PERIODS = (7, 30, 90)


def sales(days: int) -> dict[str, Any]:
    """Turnover by day, category and state, and the best sellers, of the last `days` days."""
    newest = Order.objects.aggregate(newest=Max("created"))["newest"]
    if newest is None:
        return {"days": days, "turnover": {}, "categories": {}, "states": {}, "best": []}
    orders = Order.objects.filter(created__gt=newest - timedelta(days=days))
    by_day = orders.annotate(day=TruncDate("created")).values_list("day")
    best = orders.values_list("product__name").annotate(n=Sum("quantity")).order_by("-n")[:10]
    return {
        "days": days,
        "turnover": {str(day): cents for day, cents in by_day.annotate(cents=Sum("total_cents"))},
        "categories": dict(
            orders.values_list("product__category").annotate(cents=Sum("total_cents"))
        ),
        "states": dict(orders.values_list("status").annotate(n=Count("id"))),
        "best": [list(row) for row in best],
    }
