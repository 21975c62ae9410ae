"""The page admin/cache/stats: who may look, who may act, what that does; on a site of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import celeriac
from celeriac.django import samples, shown, sparklines

VISITS = Path(__file__).parent / "support" / "admin_visits.py"
URL = "/admin/cache/stats"


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What `admin_visits.py` got."""
    import secrets

    command = [sys.executable, str(VISITS), f"shm://t-{secrets.token_hex(8)}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Page(HTMLParser):
    """The headings, and the tables by their section's: rows of cells, and how each is marked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.headings: list[str] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.captions: list[str] = []
        self.scopes: list[str | None] = []
        self._into: list[str] | None = None
        self.feed(text[text.index('id="content"') :])  # without the admin's own parts

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("h1", "h2", "caption"):
            self._into = []
        elif tag == "table":
            self.tables[self.headings[-1]] = []
        elif tag == "tr" and self.tables:
            self.tables[self.headings[-1]].append([])
        elif tag in ("td", "th"):
            self._into = []
            if tag == "th":
                self.scopes.append(dict(attrs).get("scope"))

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into.append(data)

    def handle_endtag(self, tag: str) -> None:
        if self._into is None or tag not in ("h1", "h2", "caption", "td", "th"):
            return
        text = " ".join("".join(self._into).split())
        self._into = None
        if tag in ("td", "th"):
            self.tables[self.headings[-1]][-1].append(text)
        else:
            (self.captions if tag == "caption" else self.headings).append(text)

    def rows(self, of: str) -> dict[str, dict[str, str]]:
        """The rows of a table, by their first cell."""
        heads, *rows = self.tables[of]
        return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def test_who_may_look(told: dict[str, Any]) -> None:
    views = told["views"]
    statuses = {name: answer["status"] for name, answer in views.items()}
    assert statuses == {
        "None": 302,
        "guest": 302,
        "temp": 403,
        "clerk": 200,
        "boss": 200,
        "root": 200,
    }
    assert views["None"]["to"] == views["guest"]["to"] == f"/admin/login/?next={URL}"
    assert told["slash"] == 200
    assert {name: answer["status"] for name, answer in told["live"].items()} == {
        "None": 302,
        "temp": 403,
        "clerk": 200,
    }


def test_the_index_leads_there_who_may_look(told: dict[str, Any]) -> None:
    leads = {name: f'href="{URL}"' in answer["body"] for name, answer in told["index"].items()}
    assert leads == {"clerk": True, "boss": True, "temp": False}


def test_buttons_are_for_who_may_act(told: dict[str, Any]) -> None:
    buttons = {
        name: re.findall(r'name="action" value="(\w+)"', told["views"][name]["body"])
        for name in ("clerk", "boss", "root")
    }
    assert buttons["clerk"] == []
    assert buttons["boss"] == buttons["root"] != []
    assert set(buttons["boss"]) == {"clear", "retry", "reset"}


def test_what_it_shows(told: dict[str, Any]) -> None:
    page = Page(told["views"]["boss"]["body"])
    caches = page.rows("Caches")
    assert list(caches) == ["django"]
    assert caches["django"]["Hit ratio"] == "66.7 %"
    assert [caches["django"][name] for name in ("Hits", "Misses", "Entries")] == ["2", "1", "6"]
    prefixes = page.rows("Key prefixes")
    assert prefixes.keys() == {"product", "user", "nobody", "<b>&", "(none)"}
    assert [prefixes["product"][name] for name in ("Entries", "Hits", "Misses")] == ["3", "2", "0"]
    assert prefixes["nobody"]["Hit ratio"] == "0.0 %"
    assert prefixes["product"]["Action"] == "Clear product of django"
    queues = page.rows("Queues")
    states = ("Ready", "Delayed", "Reserved", "Dead", "Done")
    assert [queues["mail"][name] for name in states] == ["1", "0", "0", "2", "0"]
    assert [queues["idle<&>"][name] for name in states] == ["0", "1", "0", "0", "0"]
    assert queues["mail"]["Oldest"] != shown.NONE
    assert (queues["idle<&>"]["Oldest"], queues["idle<&>"]["Action"]) == (shown.NONE, "")
    (process,) = page.rows("Processes").values()
    assert process["State"] == "alive"
    assert "admin_visits.py" in process["Command"]
    locks = page.rows("Locks")
    assert [locks["nightly report"][name] for name in ("Kind", "State")] == ["lock", "held"]
    assert locks["nightly report"]["Pid"] == process["Pid"]
    limited = page.rows("Most limited")
    assert list(limited) == ["guest:ip 192.0.2.7"]
    assert limited["guest:ip 192.0.2.7"]["Refused"] == "3"
    assert limited["guest:ip 192.0.2.7"]["Rate"] == "2/hour"
    slow = page.rows("Slow requests")
    assert (slow["GET /slow"]["Status"], slow["GET /slow"]["Queries"]) == ("200", "0")
    assert "secret" not in told["views"]["boss"]["body"]


@pytest.mark.parametrize("name", ["clerk", "boss"])
def test_it_is_marked_up_for_screen_readers_and_a_strict_policy(
    told: dict[str, Any], name: str
) -> None:
    body = told["views"][name]["body"]
    assert re.findall(r"<style|<script(?! src=)|<\w[^>]* (?:style|on\w+)=", body) == []
    page = Page(body)
    assert page.headings == [
        *("Cache and queues", "Now", "Queues", "Caches", "Key prefixes"),
        *("Processes", "Locks", "Most limited", "Slow requests"),
    ]
    assert len(page.tables) == len(page.captions) == 7
    assert all(page.captions)
    assert set(page.scopes) == {"col", "row"}


def test_live_numbers(told: dict[str, Any]) -> None:
    found = json.loads(told["live"]["clerk"]["body"])
    assert found["queues"] == ["idle<&>", "mail"]
    assert found["texts"]["ratio"] == "66.7 %"
    assert found["texts"]["queue-1-dead"] == "2"
    body = told["views"]["clerk"]["body"]
    assert set(re.findall(r'data-text="([\w-]+)"', body)) == found["texts"].keys()
    assert set(re.findall(r'data-line="([\w-]+)"', body)) == found["lines"].keys()


def test_what_is_refused_changes_nothing(told: dict[str, Any]) -> None:
    assert told["refused"] == {
        "no token": 403,
        "wrong token": 403,
        "may only look": 403,
        "nobody": 403,
        "get": 200,
    }
    assert told["untouched"] == [3, 2]
    assert told["log before"] == 0


def test_actions(told: dict[str, Any]) -> None:
    done = told["done"]
    assert {(answer["status"], answer["to"]) for answer in done.values()} == {(302, URL)}
    said = {name: answer["said"] for name, answer in done.items()}
    quote = "&#x27;"
    assert said["clear"] == [
        f"Cleared the prefix {quote}product{quote} of the cache {quote}django{quote}: 3 entries."
    ]
    assert said["again"][0].endswith("0 entries.")
    assert "&lt;b&gt;&amp;" in said["html"][0]
    assert said["plain"][0].startswith("Cleared keys without a prefix")
    assert said["retry"][0].endswith("2 messages.")
    assert said["reset"] == [
        f"Reset the limit {quote}django role guest{quote} for {quote}guest:ip 192.0.2.7{quote}."
    ]
    assert told["left"] == ["user:1"]
    assert told["dead"] == 0
    assert (told["limited before"], told["limited after"]) == (429, 200)


def test_actions_are_in_the_admins_log(told: dict[str, Any]) -> None:
    log = told["log"]
    assert [entry[:2] for entry in log] == [["boss", 2]] * 6
    assert log[0][2] == "Cleared the prefix 'product' of the cache 'django': 3 entries."
    assert {entry[3] for entry in log} == {"celeriac | cache and queues"}
    assert "Put back dead messages of the queue" in told["index later"]["body"]


def test_wrong_actions_say_why_and_are_not_logged(told: dict[str, Any]) -> None:
    assert [said[0].split(": ")[1].split(" &#x27;")[0] for said in told["wrong"]] == [
        *("unknown action.", "unknown action.", "there is no cache", "there is no cache"),
        *("no prefix was named.", "no prefix was named.", "there is no queue"),
        "this key isn&#x27;t limited any more.",
    ]
    assert told["wrong made"] == [False, False]
    assert told["log afterwards"] == len(told["log"])


def test_an_empty_store(told: dict[str, Any]) -> None:
    assert told["empty"]["status"] == 200
    assert set(Page(told["empty"]["body"]).tables) == {"Processes"}


def test_samples_are_a_second_apart_and_rates_are_between_them(location: str) -> None:
    store = celeriac.connect(location)
    cache = store.cache("django")
    (first,) = samples.take(store, store.stats())
    assert samples.take(store, store.stats()) == [first]
    earlier = first._replace(at=first.at - 10)
    store.table("celeriac.samples").set("latest", [tuple(earlier)], ttl=None)
    cache.set("k", 1)
    for _ in range(30):
        cache.get("k")
    store.cache("celeriac.own").get("k")
    store.queue("q").put("m")
    before, now = samples.take(store, store.stats())
    assert before == earlier
    assert (now.hits, now.misses, now.ready, now.queues) == (30, 0, 1, {"q": (1, 0)})
    (rate,) = samples.rates([before, now], "hits")
    assert rate == pytest.approx(30 / (now.at - before.at))
    assert samples.rates([now, before._replace(at=now.at + 1)], "hits") == [0]
    old = [tuple(earlier._replace(at=first.at - seconds)) for seconds in (9999, -9999)]
    store.table("celeriac.samples").set("latest", old, ttl=None)
    assert len(samples.take(store, store.stats())) == 1
    store.table("celeriac.samples").set("latest", [tuple(first)[:-1]], ttl=None)
    assert len(samples.take(store, store.stats())) == 1
    many = [tuple(first._replace(at=first.at - 200 + number)) for number in range(samples.KEPT)]
    store.table("celeriac.samples").set("latest", many, ttl=None)
    assert len(samples.take(store, store.stats())) == samples.KEPT


def test_curves() -> None:
    assert sparklines.points([], 3) == sparklines.points([1], 3) == ""
    assert sparklines.points([0, 5, 10], 3) == "2.0,30.0 60.0,16.0 118.0,2.0"
    assert sparklines.points([0, 10], 3) == "60.0,30.0 118.0,2.0"
    assert sparklines.points([0, 0], 2) == "2.0,30.0 118.0,30.0"
    assert sparklines.points([1, 4], 2, top=2) == "2.0,16.0 118.0,2.0"


def test_numbers_for_people() -> None:
    assert [shown.size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 40)] == [
        *("0 B", "1,023 B", "1.5 KiB", "5.0 MiB", "3,072.0 GiB")
    ]
    assert [shown.seconds(n) for n in (None, 0.0123, 2, 90, 7200, 172800)] == [
        *("–", "12 ms", "2.0 s", "1.5 min", "2.0 h", "2.0 d")
    ]
    assert [shown.per_second(n) for n in (None, 0, 0.25, 12345.6)] == [
        *("–", "0/s", "0.2/s", "12,346/s")
    ]
    assert [shown.ratio(*n) for n in ((0, 0), (1, 2), (3, 0))] == ["–", "33.3 %", "100.0 %"]
    assert [shown.count(n) for n in (None, 1234)] == ["–", "1,234"]
