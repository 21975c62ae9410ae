"""Judges the ledger of a kill soak: what was lost, doubled, torn, late or unexplained.

What a kill may explain, and nothing else may:
  - a put() whose intent is noted and whose return isn't: put or not put
  - a delivery without acknowledgement by a process that was killed: the message comes again, or was
    acknowledged between ack() and the note
  - a delivery number that nobody noted: killed between get() and the note; one for each kill
"""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import soak_ledger as ledger


@dataclass
class Incarnation:
    """One process of the soak."""

    number: int
    role: str
    pid: int
    killed: bool = False
    stops: int = 0


@dataclass(slots=True)
class Delivery:
    """One delivery of one message, as its consumer noted it."""

    n: int
    by: int
    acked: bool = False
    given_back: bool = False


@dataclass
class Verdict:
    """Figures, and what was wrong."""

    violations: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)
    notes: Counter[bytes] = field(default_factory=Counter)
    count_intents: Counter[int] = field(default_factory=Counter)
    counted: Counter[int] = field(default_factory=Counter)
    may_have_counted: Counter[int] = field(default_factory=Counter)

    def wrong(self, what: str, examples: list[str]) -> None:
        """A violation, if there are examples of it."""
        if examples:
            shown = "; ".join(examples[:5])
            self.violations.append(f"{len(examples)} x {what}: {shown}")


class _Books:
    """All records, by what they are about."""

    def __init__(self) -> None:
        self.open_intents: set[int] = set()
        self.put: set[int] = set()
        self.refused: set[int] = set()
        self.deliveries: dict[int, list[Delivery]] = defaultdict(list)
        self.late: list[int] = []
        self.late_stopped: list[int] = []

    def take(self, process: Incarnation, record: ledger.Record, verdict: Verdict) -> None:
        kind, n, number, _ = record
        verdict.notes[kind] += 1
        if kind in (ledger.LATE, ledger.LATE_STOPPED):
            (self.late if kind == ledger.LATE else self.late_stopped).append(n)
        elif process.role.startswith("producer"):
            self._producer(kind, number)
        elif process.role.startswith("consumer"):
            self._consumer(process, record)
        elif process.role.startswith("counter"):
            self._counter(kind, number, verdict)

    def _producer(self, kind: bytes, number: int) -> None:
        if kind == ledger.INTENT:
            self.open_intents.add(number)
            return
        self.open_intents.discard(number)
        (self.put if kind == ledger.DONE else self.refused).add(number)

    def _consumer(self, process: Incarnation, record: ledger.Record) -> None:
        kind, n, number, _ = record
        if kind == ledger.GOT:
            self.deliveries[number].append(Delivery(n, process.number))
            return
        for delivery in self.deliveries.get(number, ()):
            if delivery.n == n and delivery.by == process.number:
                delivery.acked = delivery.acked or kind == ledger.ACKED
                delivery.given_back = delivery.given_back or kind == ledger.GIVING_BACK

    @staticmethod
    def _counter(kind: bytes, number: int, verdict: Verdict) -> None:
        if kind == ledger.INTENT:
            verdict.count_intents[number] += 1
            verdict.may_have_counted[number] += 1
        elif kind == ledger.DONE:
            verdict.counted[number] += 1
        elif kind in (ledger.REFUSED, ledger.BUSY):
            verdict.may_have_counted[number] -= 1


def judge(folder: Path, processes: dict[int, Incarnation], slack_ms: int) -> Verdict:
    """Reads all files of the ledger and checks all that can be said without the store."""
    verdict = Verdict()
    books = _Books()
    gc.disable()  # millions of small objects that all stay
    for path in sorted(folder.iterdir()):
        process = processes[int(path.name.split(".")[0])]
        if path.suffix == ".error":
            verdict.violations.append(f"{process.role} raised: {path.read_text()}")
            continue
        for record in ledger.read(path):
            books.take(process, record, verdict)
    killed = {p.number for p in processes.values() if p.killed}
    _judge_messages(books, killed, verdict)
    _judge_rest(books, slack_ms, verdict)
    gc.enable()
    kills = Counter(p.role.rstrip("0123456789") for p in processes.values() if p.killed)
    _judge_bounds(kills, verdict)
    return verdict


def _judge_messages(books: _Books, killed: set[int], verdict: Verdict) -> None:
    lost, doubled, same, after, unexplained, unknown = [], [], [], [], [], []
    unrecorded = missing = redelivered = 0
    never = books.put - books.deliveries.keys()
    lost.extend(f"{number:#x} was put and never delivered" for number in never)
    for number, deliveries in books.deliveries.items():
        deliveries.sort(key=lambda d: d.n)
        if number not in books.put and number not in books.open_intents:
            why = "refused" if number in books.refused else "never begun"
            unknown.append(f"{number:#x} was {why}")
        acks = [d for d in deliveries if d.acked]
        if len(acks) > 1:
            doubled.append(f"{number:#x} by {[d.by for d in acks]}")
        if len({d.n for d in deliveries}) < len(deliveries):
            same.append(f"{number:#x} {[(d.n, d.by) for d in deliveries]}")
        if acks and deliveries[-1].n > acks[0].n:
            after.append(f"{number:#x} acked at {acks[0].n}, delivered at {deliveries[-1].n}")
        unexplained.extend(
            f"{number:#x} delivery {d.n} by {d.by}"
            for d in deliveries
            if not d.acked and not d.given_back and d.by not in killed
        )
        last = deliveries[-1]
        if not acks:
            if last.by in killed and not last.given_back:
                unrecorded += 1
            else:
                lost.append(f"{number:#x} was delivered, given back and never came again")
        missing += last.n - len({d.n for d in deliveries})
        redelivered += len(deliveries) - 1
    verdict.wrong("message lost", lost)
    verdict.wrong("message acknowledged twice", doubled)
    verdict.wrong("delivery number given twice", same)
    verdict.wrong("message delivered after its acknowledgement", after)
    verdict.wrong("delivery neither acknowledged nor explained by a kill", unexplained)
    verdict.wrong("message delivered that was not put", unknown)
    verdict.figures |= {
        "put": len(books.put),
        "put_or_not": len(books.open_intents),
        "refused": len(books.refused),
        "delivered": len(books.deliveries),
        "acked": verdict.notes[ledger.ACKED],
        "acks_unrecorded": unrecorded,
        "redelivered": redelivered,
        "deliveries_unrecorded": missing,
    }


def _judge_rest(books: _Books, slack_ms: int, verdict: Verdict) -> None:
    notes = verdict.notes
    if notes[ledger.TORN]:
        verdict.violations.append(f"{notes[ledger.TORN]} torn bodies or values")
    if notes[ledger.STALE]:
        verdict.violations.append(f"{notes[ledger.STALE]} cache reads older than an earlier read")
    if notes[ledger.REJECTED]:
        verdict.violations.append(f"{notes[ledger.REJECTED]} NotOwner in living processes")
    late = [f"{ms} ms" for ms in sorted(books.late, reverse=True) if ms > slack_ms]
    verdict.wrong(f"wait more than {slack_ms} ms past its deadline", late)
    verdict.figures |= {
        "late_ms_max": max(books.late, default=0),
        "late_stopped_ms_max": max(books.late_stopped, default=0),
        "lock_timeouts": notes[ledger.BUSY],
    }


def _judge_bounds(kills: Counter[str], verdict: Verdict) -> None:
    figures = verdict.figures
    for what, kind, each in (
        ("acks_unrecorded", "consumer", 1),
        ("deliveries_unrecorded", "consumer", 1),
    ):
        if figures[what] > kills[kind] * each:
            verdict.violations.append(f"{what}: {figures[what]} by {kills[kind]} kills")
    figures["kills"] = sum(kills.values())
    for kind, n in kills.items():
        figures[f"kills_{kind}"] = n


def judge_counters(verdict: Verdict, totals: list[int]) -> None:
    """Each counter: no less than was acknowledged, no more than was begun."""
    wrong = [
        f"c{which} is {total}, not {verdict.counted[which]} to {verdict.may_have_counted[which]}"
        for which, total in enumerate(totals)
        if not verdict.counted[which] <= total <= verdict.may_have_counted[which]
    ]
    verdict.wrong("counter", wrong)
    verdict.figures["counted"] = sum(totals)
    open_ends = sum(verdict.may_have_counted.values()) - sum(verdict.counted.values())
    if open_ends > verdict.figures.get("kills_counter", 0):
        verdict.violations.append(f"{open_ends} increments neither finished nor killed")
