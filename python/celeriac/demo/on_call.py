"""What whoever is on call for the shop sees: the same shop on celeriac, watched.

Each role asks more often than it may, a page asks the database too often, tasks are sent; then the
refusals, the ring of slow requests, what Prometheus would scrape, the admin page, the answers for a
load balancer and `celeriac top` are looked at, each as its user would.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from . import interrupts
from .backends import backend
from .errors import DemoError
from .phase import Stand
from .shop import PYTHON, Shop
from .visitor import Visitor

LIMITS = {"superadmin": 300, "owner": 200, "manager": 150, "staff": 100, "guest": 50}
REFUSALS = 10  # each role asks until it has so many, or has asked for MOST times its limit
MOST = 5
EVENTS = 10
TASKS = 2 * EVENTS
TASK_SECONDS = 30.0
ADDRESSES = "192.0.2.{}"  # RFC 5737: nobody's


@dataclass(frozen=True)
class WatchedShop:
    """A shop that runs, the URL of its store, and the password of all who have a role."""

    shop: Shop
    url: str
    password: str


@contextmanager
def watched_shop(stand: Stand, port: int = 0) -> Iterator[WatchedShop]:
    """The shop with web and task workers and beat, and somebody of each role."""
    directory = stand.directory / "watched"
    directory.mkdir()
    stand.progress.step("starting")
    with backend("celeriac", stand.services, directory) as backing:
        password = secrets.token_urlsafe(9)
        settings = {**backing.settings, "DEMO_WATCHED": "1", "DEMO_PASSWORD": password}
        shop = Shop(stand.services, directory, stand.template, "celeriac", settings, stand.options)
        try:
            shop.manage("migrate", "--verbosity=0")
            shop.manage("make_people")
            web, worker = shop.start_web(port), shop.start_worker()
            shop.wait_for_web(web)
            shop.wait_for_worker(worker)
            shop.start_beat()
            yield WatchedShop(shop, backing.settings["DEMO_STORE_URL"].partition("?")[0], password)
        finally:
            stand.services.stop_all()


def look(stand: Stand) -> dict[str, Any]:
    """Look at all of it; what was seen, as JSON may hold it. Raises `DemoError`."""
    with watched_shop(stand) as watched:
        port = watched.shop.port
        try:
            top = _start_top(stand, watched)
            stand.progress.step("asking too often")
            roles = [
                _too_often(watched, role, ADDRESSES.format(10 + number))
                for number, role in enumerate(LIMITS)
            ]
            stand.progress.step("looking at the numbers")
            with closing(Visitor(port, ADDRESSES.format(2))) as visitor:
                slow = visitor.get("/bestsellers")
                for number in range(1, EVENTS + 1):
                    visitor.send_event(number)
                seen: dict[str, Any] = {
                    "roles": roles,
                    "slow": {name: slow.headers.get(name, "") for name in SLOW_HEADERS},
                    "metrics": _metrics(visitor),
                    "answers": {path: visitor.get(path).status for path in ANSWERS},
                }
            with closing(Visitor(port, ADDRESSES.format(3))) as person:
                person.sign_in("superadmin", watched.password)
                seen["admin"] = _admin(person)
            top.wait_until(lambda: top.process.poll() == 0, TASK_SECONDS)
            stand.services.stop(top)
            seen["top"] = _top(top.log.read_text())
        except (OSError, ValueError, KeyError) as error:
            raise DemoError(f"the watched shop didn't answer as it should: {error!r}") from error
        return seen


SLOW_HEADERS = ("x-request-id", "x-request-time", "x-sql-queries")
ANSWERS = ("/health/cache", "/livez", "/readyz")


def problems(seen: dict[str, Any]) -> list[str]:
    """What isn't as it should be."""
    found = [
        f"{role['role']}: {role['answered']} answered, {role['refused']} refused of "
        f"{role['asked']} at {role['limit']} a minute"
        for role in seen["roles"]
        if role["answered"] < role["limit"] or not role["refused"] or not role["retry_after"]
    ]
    if seen["metrics"]["succeeded"] < TASKS:
        found.append(f"metrics count {seen['metrics']['succeeded']:.0f} tasks of {TASKS}")
    found += [f"{path} said {code}" for path, code in seen["answers"].items() if code != 200]
    if seen["admin"]["status"] != 200 or not seen["admin"]["queues"]:
        found.append(f"the admin page said {seen['admin']['status']}")
    if not seen["admin"]["slow_request"]:
        found.append("the slow request isn't on the admin page")
    return found


def _too_often(watched: WatchedShop, role: str, address: str) -> dict[str, Any]:
    """Ask as a role until it is more than that may in a minute."""
    codes: list[int] = []
    retry_after = ""
    with closing(Visitor(watched.shop.port, address)) as visitor:
        if role != "guest":
            visitor.sign_in(role, watched.password)
        while codes.count(429) < REFUSALS and len(codes) < MOST * LIMITS[role]:
            interrupts.check()
            answer = visitor.get(f"/products/{len(codes) % 100 + 1}")
            codes.append(answer.status)
            retry_after = answer.headers.get("retry-after", retry_after)
    return {
        "role": role,
        "limit": LIMITS[role],
        "asked": len(codes),
        "answered": codes.count(200),
        "refused": codes.count(429),
        "retry_after": retry_after,
    }


def _metrics(visitor: Visitor) -> dict[str, Any]:
    """What Prometheus would read, once all tasks are in it."""
    deadline = time.monotonic() + TASK_SECONDS
    while True:
        began = time.perf_counter()
        lines = visitor.get("/metrics").body.splitlines()
        took = time.perf_counter() - began
        samples = [line for line in lines if not line.startswith("#")]
        succeeded = sum(
            float(line.rpartition(" ")[2])
            for line in samples
            if line.startswith("celery_task_succeeded_total{")
        )
        if succeeded >= TASKS or time.monotonic() > deadline:
            break
        interrupts.sleep(0.25)
    return {
        "families": sum(line.startswith("# TYPE") for line in lines),
        "samples": len(samples),
        "succeeded": succeeded,
        "milliseconds": 1000 * took,
    }


def _admin(person: Visitor) -> dict[str, Any]:
    page = person.get("/admin/cache/stats")
    live = person.get("/admin/cache/stats?live").json()
    return {
        "status": page.status,
        "queues": live["queues"],
        "slow_request": "GET /bestsellers" in page.body,
    }


def _start_top(stand: Stand, watched: WatchedShop) -> Any:
    command = [PYTHON, "-m", "celeriac.cli", "top", watched.url, "--json", "--once"]
    return stand.services.start("top", command, stand.directory, {})


def _top(printed: str) -> dict[str, Any]:
    """Of what `celeriac top` printed, what has a place in a table."""
    found = json.loads(printed.splitlines()[-1])
    return {
        "processes": len(found["processes"]),
        "operations_per_second": found["total"]["operations_per_second"],
        "memory": found["memory"]["used"],
    }
