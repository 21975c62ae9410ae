"""A few seconds of the kill soak, and that its judge sees what it is there to see."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soak_ledger as ledger
from soak_ledger import Ledger
from soak_verdict import Incarnation, Verdict, judge, judge_counters

SOAK = Path(__file__).with_name("soak.py")
OPTIONS = ["--seconds", "6", "--seed", "7", "--kills", "40", "--trials", "10"]


def test_six_seconds_of_kills(tmp_path: Path) -> None:
    report = tmp_path / "soak.json"
    # In a process of its own: it forks, and has signal handlers.
    done = subprocess.run(
        [sys.executable, str(SOAK), *OPTIONS, "--json", str(report)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(report.read_text())
    assert result["violations"] == []
    assert result["figures"]["kills"] >= 40
    assert result["figures"]["acked"] > 0
    assert result["redelivery"]["trials"] == 10


P, C, KILLED, SURVIVOR = 1, 2, 3, 4


@pytest.fixture
def books(tmp_path: Path) -> dict[int, Ledger]:
    """A producer, a consumer, a killed consumer and a counter."""
    roles = {P: "producer0", C: "consumer0", KILLED: "consumer1", SURVIVOR: "counter0"}
    return {n: Ledger(tmp_path, role, n) for n, role in roles.items()}


def verdict_of(folder: Path) -> Verdict:
    processes = {
        P: Incarnation(P, "producer0", 1),
        C: Incarnation(C, "consumer0", 2),
        KILLED: Incarnation(KILLED, "consumer1", 3, killed=True),
        SURVIVOR: Incarnation(SURVIVOR, "counter0", 4),
    }
    return judge(folder, processes, slack_ms=500)


def put(books: dict[int, Ledger], number: int) -> None:
    books[P].note(ledger.INTENT, number)
    books[P].note(ledger.DONE, number)


def deliver(books: dict[int, Ledger], by: int, number: int, n: int, ack: bool = True) -> None:
    books[by].note(ledger.GOT, number, n)
    if ack:
        books[by].note(ledger.ACKED, number, n)


def fine(books: dict[int, Ledger]) -> None:
    put(books, 1)
    deliver(books, C, 1, 1)
    put(books, 2)  # killed while it had it, redelivered
    deliver(books, KILLED, 2, 1, ack=False)
    deliver(books, C, 2, 2)
    put(books, 3)  # given back
    books[C].note(ledger.GOT, 3, 1)
    books[C].note(ledger.GIVING_BACK, 3, 1)
    deliver(books, C, 3, 2)
    books[P].note(ledger.INTENT, 4)  # killed in put(): may be there, may be not
    put(books, 5)  # acknowledged, and killed before it was noted
    deliver(books, KILLED, 5, 1, ack=False)


def never_delivered(books: dict[int, Ledger]) -> None:
    put(books, 9)


def acked_twice(books: dict[int, Ledger]) -> None:
    put(books, 9)
    deliver(books, C, 9, 1)
    deliver(books, C, 9, 2)


def delivered_twice_at_once(books: dict[int, Ledger]) -> None:
    put(books, 9)
    deliver(books, KILLED, 9, 1, ack=False)
    deliver(books, C, 9, 1)


def delivered_after_its_ack(books: dict[int, Ledger]) -> None:
    put(books, 9)
    deliver(books, C, 9, 1)
    deliver(books, KILLED, 9, 2, ack=False)


def redelivered_from_the_living(books: dict[int, Ledger]) -> None:
    put(books, 9)
    deliver(books, C, 9, 1, ack=False)
    deliver(books, C, 9, 2)


def refused_and_delivered(books: dict[int, Ledger]) -> None:
    books[P].note(ledger.INTENT, 9)
    books[P].note(ledger.REFUSED, 9)
    deliver(books, C, 9, 1)


def torn(books: dict[int, Ledger]) -> None:
    books[C].note(ledger.TORN, 0)


def late(books: dict[int, Ledger]) -> None:
    books[C].note(ledger.LATE, 0, 700)


def not_owner(books: dict[int, Ledger]) -> None:
    books[C].note(ledger.REJECTED, 9, 1)


def raised(books: dict[int, Ledger]) -> None:
    books[C].broken("ValueError: oops")


def unnoted_without_kills(books: dict[int, Ledger]) -> None:
    put(books, 9)
    deliver(books, C, 9, 4)  # three deliveries that nobody noted, and one kill


@pytest.mark.parametrize(
    ("story", "complaint"),
    [
        (fine, None),
        (never_delivered, "message lost"),
        (acked_twice, "acknowledged twice"),
        (delivered_twice_at_once, "number given twice"),
        (delivered_after_its_ack, "after its acknowledgement"),
        (redelivered_from_the_living, "nor explained by a kill"),
        (refused_and_delivered, "that was not put: 0x9 was refused"),
        (torn, "torn"),
        (late, "past its deadline: 700 ms"),
        (not_owner, "NotOwner"),
        (raised, "oops"),
        (unnoted_without_kills, "deliveries_unrecorded: 3 by 1 kills"),
    ],
)
def test_the_judge(
    tmp_path: Path,
    books: dict[int, Ledger],
    story: Callable[[dict[int, Ledger]], None],
    complaint: str | None,
) -> None:
    story(books)
    verdict = verdict_of(tmp_path)
    if complaint is None:
        assert verdict.violations == []
        assert verdict.figures["acks_unrecorded"] == 1
        assert verdict.figures["put_or_not"] == 1
    else:
        assert any(complaint in violation for violation in verdict.violations), verdict.violations


@pytest.mark.parametrize(("total", "good"), [(0, False), (1, True), (2, True), (3, False)])
def test_the_judge_of_counters(
    tmp_path: Path, books: dict[int, Ledger], total: int, good: bool
) -> None:
    books[SURVIVOR].note(ledger.INTENT, 0)
    books[SURVIVOR].note(ledger.DONE, 0)
    books[SURVIVOR].note(ledger.INTENT, 0)
    verdict = verdict_of(tmp_path)
    verdict.figures["kills_counter"] = 1
    judge_counters(verdict, [total])
    assert (verdict.violations == []) == good


def test_bodies_say_what_they_are() -> None:
    body = ledger.make_body(77, 1000, random.Random(1))
    assert ledger.number_of(body) == 77
    for damaged in (body[:-1], body + b"x", body[:500] + b"\0\0" + body[502:], b"", b"x"):
        assert ledger.number_of(damaged) is None
