"""A Celery application under Sentry's SDK, whose transport appends to a file.

`celery -A sentry_app worker` is its worker; run as a program it sends the task `shop.note` within a
transaction, waits for the result, lets `shop.fail` fail, and prints their ids. The environment
names the store (CELERIAC_TEST_URL), the file (CELERIAC_TEST_NOTES) and the application's `amqp`
(CELERIAC_TEST_AMQP).
"""

from __future__ import annotations

import json
import os
from typing import Any

import sentry_sdk
from celery import Celery
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.transport import Transport

URL = f"celeriac+{os.environ['CELERIAC_TEST_URL']}"


class Local(Transport):
    """Writes what would be sent, a line for each transaction or event."""

    def capture_envelope(self, envelope: Envelope) -> None:
        with open(os.environ["CELERIAC_TEST_NOTES"], "a") as file:
            for item in envelope.items:
                if item.payload.json is not None:
                    file.write(json.dumps(item.payload.json, default=str) + "\n")


sentry_sdk.init(
    dsn="https://key@sentry.invalid/1",
    transport=Local,
    traces_sample_rate=1.0,
    default_integrations=False,
    integrations=[CeleryIntegration()],
)
app = Celery("shop", broker=URL, backend=URL, amqp=os.environ.get("CELERIAC_TEST_AMQP") or None)


@app.task(name="shop.note")
def note(text: str) -> str:
    """Give it back."""
    return text


@app.task(name="shop.fail")
def fail() -> None:
    """Raise."""
    raise LookupError("no such product")


def main() -> None:
    with sentry_sdk.start_transaction(op="http.server", name="order") as transaction:
        sent: list[Any] = [note.delay("x"), note.apply_async(("y",), countdown=0.1), fail.delay()]
    assert [each.get(timeout=60) for each in sent[:2]] == ["x", "y"]
    assert isinstance(sent[2].get(timeout=60, propagate=False), LookupError)
    print(json.dumps({"trace": transaction.trace_id, "ids": [each.id for each in sent]}))


if __name__ == "__main__":
    main()
