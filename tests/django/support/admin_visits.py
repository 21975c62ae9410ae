"""Visits to `admin_site.py` by Django's test client, which checks CSRF tokens; run as a program.

    admin_visits.py LOCATION

Prints as JSON what each visit got, and what was there afterwards.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

from admin_site import configure

LOCATION = sys.argv[1]
configure(LOCATION, ":memory:")

from django.contrib.admin.models import LogEntry  # noqa: E402 - after the settings
from django.core.cache import cache  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.test import Client  # noqa: E402

URL = "/admin/cache/stats"
store = cache.store


def fill() -> Any:
    """Something of everything."""
    for number in range(3):
        cache.set(f"product:{number}", number)
    cache.set("plain", 1)
    cache.set_many({"<b>&:1": 1, "user:1": 1})
    for key in ("product:1", "product:2", "nobody:1"):
        cache.get(key)
    mail = store.queue("mail", max_deliveries=1)
    mail.put_many(["a", "b", "c"])
    for message in mail.get_many(2, 0):
        message.nack(reason="no")
    store.queue("idle<&>").put("x", delay=60)
    visitor = Client(REMOTE_ADDR="192.0.2.7")
    for _ in range(5):
        visitor.get("/page")
    Client(REMOTE_ADDR="192.0.2.8").get("/slow?secret=1")
    lock = store.lock("nightly report")
    lock.acquire()
    return lock


def client_of(name: str | None) -> Client:
    client = Client(enforce_csrf_checks=True)
    if name:
        assert client.login(username=name, password=name)
    return client


def shown(response: Any) -> dict[str, Any]:
    return {
        "status": response.status_code,
        "to": response.headers.get("Location", ""),
        "body": response.content.decode(),
    }


def token_of(page: str) -> str:
    found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
    return found[1] if found else ""


def post(client: Client, token: str = "", **form: str) -> dict[str, Any]:
    """What it got, and the messages of the page that it led to."""
    answer = shown(client.post(URL, {"csrfmiddlewaretoken": token, **form}))
    if answer["status"] == 302 and answer["to"] == URL:
        page = client.get(URL).content.decode()
        answer["said"] = re.findall(r'<li class="(?:success|error)">(.*?)</li>', page, re.DOTALL)
    return answer


def limited_id(page: str) -> str:
    found = re.search(r'name="id" value="(\w+)"', page)
    return found[1] if found else ""


held = fill()
told: dict[str, Any] = {"views": {}}
for person in (None, "guest", "temp", "clerk", "boss", "root"):
    told["views"][str(person)] = shown(client_of(person).get(URL))
told["slash"] = client_of("root").get(f"{URL}/").status_code
told["index"] = {name: shown(client_of(name).get("/admin/")) for name in ("clerk", "boss", "temp")}
told["live"] = {
    str(name): shown(client_of(name).get(f"{URL}?live")) for name in (None, "temp", "clerk")
}

clear = {"action": "clear", "cache": "django", "prefix": "product"}
retry = {"action": "retry", "queue": "mail"}
boss, clerk = client_of("boss"), client_of("clerk")
page_of_boss = boss.get(URL).content.decode()
token, token_of_clerk = token_of(page_of_boss), token_of(clerk.get(URL).content.decode())
reset = {"action": "reset", "id": limited_id(page_of_boss)}
told["refused"] = {
    "no token": post(boss, **clear)["status"],
    "wrong token": post(boss, "x" * 64, **clear)["status"],
    "may only look": post(clerk, token_of_clerk, **clear)["status"],
    "nobody": post(client_of(None), **clear)["status"],
    "get": boss.get(URL, clear).status_code,
}
told["untouched"] = [len(cache.keys("product:*")), store.queue("mail").counts().dead]
told["log before"] = LogEntry.objects.count()
told["limited before"] = Client(REMOTE_ADDR="192.0.2.7").get("/page").status_code
told["done"] = {
    "clear": post(boss, token, **clear),
    "again": post(boss, token, **clear),
    "html": post(boss, token, **{**clear, "prefix": "<b>&"}),
    "plain": post(boss, token, **{**clear, "prefix": ""}),
    "retry": post(boss, token, **retry),
    "reset": post(boss, token, **reset),
}
told["left"] = sorted(cache.keys("*"))
told["dead"] = store.queue("mail").counts().dead
told["limited after"] = Client(REMOTE_ADDR="192.0.2.7").get("/page").status_code
told["log"] = [
    [entry.user.username, entry.action_flag, entry.get_change_message(), str(entry.content_type)]
    for entry in LogEntry.objects.order_by("pk")
]
told["wrong"] = [
    post(boss, token, **form).get("said")
    for form in (
        {},
        {"action": "destroy"},
        {**clear, "cache": "celeriac.limited"},
        {**clear, "cache": "nowhere"},
        {"action": "clear", "cache": "django"},
        {**clear, "prefix": "(other)"},
        {**retry, "queue": "nowhere"},
        reset,
    )
]
told["wrong made"] = [store.has_queue("nowhere"), "nowhere" in store.caches()]
told["log afterwards"] = LogEntry.objects.count()
told["index later"] = shown(boss.get("/admin/"))
told["health"] = shown(Client().get("/health/cache"))
held.release()

call_command("dumpdata", "celeriac_django", output="/dev/null")
call_command("makemigrations", check_changes=True, verbosity=0)

store.destroy(force=True)
open_again = cache.store  # another, with nothing in it
told["empty"] = shown(client_of("boss").get(URL))
open_again.destroy(force=True)
print(json.dumps(told))
