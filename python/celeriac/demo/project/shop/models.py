"""What the shop stores: its goods, its orders, and a record of each task that ran."""

from __future__ import annotations

from django.db import models


class Product(models.Model):
    """Something for sale. `version` counts its changes, so that a stale page can be told."""

    name = models.CharField(max_length=80)
    category = models.CharField(max_length=20, db_index=True)
    price_cents = models.PositiveIntegerField()
    stock = models.PositiveIntegerField()
    version = models.PositiveIntegerField(default=1)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return str(self.name)


class Order(models.Model):
    """One product bought once."""

    product = models.ForeignKey(Product, on_delete=models.CASCADE, related_name="orders")
    quantity = models.PositiveSmallIntegerField()
    total_cents = models.PositiveIntegerField()
    status = models.CharField(max_length=12, default="new")
    created = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"order {self.pk}"


class TaskRun(models.Model):
    """One attempt of one task, written in the transaction of its effect.

    The demo counts tasks by these rows and not by what a queue says of itself. Times are seconds
    since the epoch; `sent` is null where the task ran inside the request.
    """

    DONE = "done"
    RETRY = "retry"

    task_id = models.CharField(max_length=36, db_index=True)
    kind = models.CharField(max_length=16)
    attempt = models.PositiveSmallIntegerField()
    outcome = models.CharField(max_length=5)
    sent = models.FloatField(null=True)
    started = models.FloatField()
    finished = models.FloatField()

    def __str__(self) -> str:
        return f"{self.kind} {self.task_id}, attempt {self.attempt}: {self.outcome}"


class ScheduledTask(models.Model):
    """One task that beat has sent: the sender's side of the count."""

    task_id = models.CharField(max_length=36, primary_key=True)

    def __str__(self) -> str:
        return str(self.task_id)
