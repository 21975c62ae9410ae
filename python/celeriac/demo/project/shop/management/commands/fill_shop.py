"""`manage.py fill_shop`: generate the shop's products, orders and customers, the same each time."""

from __future__ import annotations

import random
from argparse import ArgumentParser
from datetime import datetime, timedelta, timezone
from typing import Any

from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand
from django.db import transaction

from ...models import Order, Product

CATEGORIES = ("roots", "leaves", "stalks", "seeds", "herbs", "tools", "pots", "books")
STATES = ("new", "paid", "sent", "returned")
FIRST_DAY = datetime(2025, 1, 1, tzinfo=timezone.utc)
YEAR = 365 * 24 * 3600


class Command(BaseCommand):
    """Fill an empty, migrated database."""

    help = "Generate products, orders and customers."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """How much of each."""
        parser.add_argument("--products", type=int, default=2_000)
        parser.add_argument("--orders", type=int, default=50_000)
        parser.add_argument("--customers", type=int, default=20)
        parser.add_argument("--seed", type=int, default=1)

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """Insert everything in one transaction."""
        rng = random.Random(options["seed"])
        products = [
            Product(
                id=number,
                name=f"{rng.choice(CATEGORIES).title()} No. {number}",
                category=rng.choice(CATEGORIES),
                price_cents=rng.randrange(100, 20_000),
                stock=rng.randrange(500),
            )
            for number in range(1, options["products"] + 1)
        ]
        Product.objects.bulk_create(products, batch_size=1_000)
        Order.objects.bulk_create(
            (self._order(rng, products) for _ in range(options["orders"])), batch_size=5_000
        )
        password = make_password("celery root")
        User.objects.bulk_create(
            User(username=f"customer{number}", password=password)
            for number in range(1, options["customers"] + 1)
        )

    @staticmethod
    def _order(rng: random.Random, products: list[Product]) -> Order:
        product = rng.choice(products)
        quantity = rng.randrange(1, 6)
        return Order(
            product=product,
            quantity=quantity,
            total_cents=quantity * product.price_cents,
            status=rng.choice(STATES),
            created=FIRST_DAY + timedelta(seconds=rng.randrange(YEAR)),
        )
