"""The requests of a run: drawn once, written to a file, and sent in this order in each phase.

A request is `[kind, argument, customer]`; customer 0 sends no session. Both lists of a plan, the
warm-up's and the load's, begin with nothing else than what they need: the warm-up logs every
customer in, so that later requests can be signed in.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

from . import trace
from .options import CUSTOMERS, PAGE_SIZE, PRODUCTS, REPORT_DAYS, DemoOptions

PRODUCT, LIST, ANALYTICS, LOGIN, WEBHOOK, PRICE = (
    "product",
    "list",
    "analytics",
    "login",
    "webhook",
    "price",
)
KINDS = (PRODUCT, LIST, ANALYTICS, LOGIN, WEBHOOK, PRICE)
MIX = {PRODUCT: 0.85, LIST: 0.10, ANALYTICS: 0.02, LOGIN: 0.01, WEBHOOK: 0.01, PRICE: 0.01}
SIGNED_IN = 0.3  # the share of page views that come with a session

MOST_PER_SECOND = 6_000
WARM_UP = 400

Request = tuple[str, int, int]


def write_plan(path: Path, options: DemoOptions) -> str:
    """Draw the requests of `options`, write them to `path`, return the file's SHA-256."""
    views = (
        trace.replayed(options.trace, PRODUCTS, options.seed)
        if options.trace
        else trace.drawn(PRODUCTS, options.seed)
    )
    requests = _draw(views, random.Random(options.seed))
    log_everyone_in = [(LOGIN, 0, customer) for customer in range(1, CUSTOMERS + 1)]
    warm_up = log_everyone_in + [next(requests) for _ in range(WARM_UP)]
    load = [next(requests) for _ in range(int(options.seconds * MOST_PER_SECOND))]
    text = json.dumps({"warm_up": warm_up, "load": load}, separators=(",", ":"))
    path.write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def read_plan(path: Path) -> tuple[list[Request], list[Request]]:
    """The warm-up's and the load's requests."""
    plan = json.loads(path.read_text())
    return plan["warm_up"], plan["load"]


def _draw(views: Iterator[int], rng: random.Random) -> Iterator[Request]:
    event = 0
    while True:
        for kind in rng.choices(KINDS, weights=[MIX[kind] for kind in KINDS], k=1_000):
            customer = rng.randrange(1, CUSTOMERS + 1)
            visitor = customer if rng.random() < SIGNED_IN else 0
            if kind == PRODUCT:
                yield PRODUCT, next(views), visitor
            elif kind == LIST:
                yield LIST, rng.randrange(1, PRODUCTS // PAGE_SIZE + 1), visitor
            elif kind == ANALYTICS:
                yield ANALYTICS, rng.choice(REPORT_DAYS), visitor
            elif kind == WEBHOOK:
                event += 1
                yield WEBHOOK, event, 0
            elif kind == PRICE:
                yield PRICE, rng.randrange(1, PRODUCTS + 1), customer
            else:
                yield LOGIN, 0, customer
