"""The shop's own tests: `manage.py test`, on any stack."""

# ruff: noqa: PT009 - run by Django's runner, which does not rewrite asserts

from __future__ import annotations

import json
from typing import Any
from unittest import mock

from django.core.cache import cache
from django.core.management import call_command
from django.test import TransactionTestCase

from . import tasks, webhooks
from .models import Order, Product, ScheduledTask, TaskRun
from .task_log import note_scheduled_task


class ShopTests(TransactionTestCase):
    """Each test has a small filled shop and an empty cache."""

    def setUp(self) -> None:
        call_command("fill_shop", products=150, orders=300, customers=2)
        cache.clear()

    def log_in(self) -> None:
        """Start a session for the first customer."""
        answer = self.client.post("/login", {"username": "customer1", "password": "celery root"})
        self.assertEqual(answer.json(), {"visitor": "customer1"})

    def test_second_view_comes_from_the_cache(self) -> None:
        for address in ("/products/7", "/products?page=2", "/analytics?days=30"):
            first, second = self.client.get(address), self.client.get(address)
            self.assertEqual(first["X-Demo-Cache"], "miss")
            self.assertEqual(second["X-Demo-Cache"], "hit")
            self.assertEqual(first.json(), second.json())

    def test_changed_price_shows_at_once(self) -> None:
        self.log_in()
        for address in ("/products/107", "/products?page=2", "/products?page=1"):
            self.client.get(address)
        changed = self.client.post("/products/107/price", {"cents": "4321"})
        self.assertEqual(changed.json(), {"id": 107, "version": 2})
        page = self.client.get("/products/107")
        self.assertEqual((page.json()["price"], page["X-Demo-Version"]), ("43.21", "2"))
        products = self.client.get("/products?page=2").json()["products"]
        shown = {product["id"]: product["price"] for product in products}
        self.assertEqual(shown[107], "43.21")
        self.assertEqual(self.client.get("/products?page=1")["X-Demo-Cache"], "hit")

    def test_price_needs_a_session(self) -> None:
        self.assertEqual(self.client.post("/products/1/price", {"cents": "1"}).status_code, 403)
        self.assertEqual(Product.objects.get(pk=1).version, 1)

    def test_wrong_password(self) -> None:
        answer = self.client.post("/login", {"username": "customer1", "password": "beet root"})
        self.assertEqual(answer.status_code, 403)

    def test_session_outlives_the_cache(self) -> None:
        self.log_in()
        cache.clear()
        self.assertEqual(self.client.get("/products/1").json()["visitor"], "customer1")

    def test_bad_requests(self) -> None:
        for address, status in (
            ("/products/9999", 404),
            ("/products?page=0", 400),
            ("/analytics?days=8", 400),
        ):
            self.assertEqual(self.client.get(address).status_code, status, address)

    def test_sales_are_those_of_the_orders(self) -> None:
        report = self.client.get("/analytics?days=90").json()
        self.assertEqual(sum(report["turnover"].values()), sum(report["categories"].values()))
        self.assertEqual(sum(report["states"].values()), _orders_of_last(90))

    def test_forged_webhook_is_refused(self) -> None:
        body = json.dumps({"id": 1, "order": 1, "status": "paid"}).encode()
        for signature in ("", "0" * 64, webhooks.sign(body + b" ")):
            answer = self.client.post(
                "/webhooks/orders", body, "application/json", headers={"X-Signature": signature}
            )
            self.assertEqual(answer.status_code, 403)

    def test_webhook_sends_the_tasks_of_its_event(self) -> None:
        for event, kinds in ((1, 2), (25, 3)):
            answer = self.send_event(event)
            self.assertEqual((answer.status_code, len(answer.json()["tasks"])), (202, kinds))

    def send_event(self, number: int) -> Any:
        """Post a signed event; its tasks aren't run, only sent."""
        body = json.dumps({"id": number, "order": 1, "status": "paid"}).encode()
        sent = mock.Mock(side_effect=lambda *_: mock.Mock(id=f"task-{number}"))
        with (
            mock.patch.object(tasks.handle_event, "delay", sent),
            mock.patch.object(tasks.notify_customer, "delay", sent),
            mock.patch.object(tasks.refresh_analytics, "delay", sent),
        ):
            return self.client.post(
                "/webhooks/orders",
                body,
                "application/json",
                headers={"X-Signature": webhooks.sign(body)},
            )

    def test_failing_attempts_are_retried_and_noted(self) -> None:
        order = Order.objects.earliest("pk")
        for event, outcomes in (
            (1, ["done"]),
            (10, ["retry", "done"]),
            (50, ["retry", "retry", "done"]),
        ):
            TaskRun.objects.all().delete()
            tasks.handle_event.apply(({"id": event, "order": order.pk, "status": "sent"},))
            noted = TaskRun.objects.order_by("attempt").values_list("outcome", flat=True)
            self.assertEqual(list(noted), outcomes)
            self.assertEqual(TaskRun.objects.values("task_id").distinct().count(), 1)
        order.refresh_from_db()
        self.assertEqual(order.status, "sent")

    def test_beat_notes_what_it_sends(self) -> None:
        note_scheduled_task(headers={"id": "abc"})
        self.assertEqual(list(ScheduledTask.objects.values_list("pk", flat=True)), ["abc"])


def _orders_of_last(days: int) -> int:
    newest = Order.objects.latest("created").created
    ages = (newest - order.created for order in Order.objects.all())
    return sum(age.total_seconds() < days * 86_400 for age in ages)
