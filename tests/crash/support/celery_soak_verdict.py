"""Judges the ledger of a Celery soak: what was lost, doubled or unexplained.

An *attempt* is one "begun" of a task. Its worker had the message until it acknowledged it, or until
the main process or the attempt's child was killed. From that follows all that is held here:

  - Every task that was sent is done at least once, and so is every one whose attempt was begun.
  - An attempt that was not acknowledged is explained by the kill of its child, or of the main
    process. A child has one task at a time, so its kill explains only its last attempt. A main
    process that gets a result hands its child the next task before it acknowledges, so its kill
    explains the last two of each child.
  - Two workers never have a message at the same time: of two attempts of a task one was over, by a
    kill, before the other began. After an acknowledgement nothing begins, so of two attempts at
    most one was acknowledged. (What a killed main process had handed to a child is done by this
    orphan, at whatever time: what counts is when the main process died.)
  - A task that was done and not "sent" was being sent when its producer was killed; one whose
    sending failed isn't done.
  - The queue is empty at the end, and counts one acknowledgement for each task that was begun; a
    main process that is killed in the middle of one may keep it from being counted.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import combinations
from math import inf

import celery_soak_ledger as ledger
from celery_soak_ledger import Life, Note


@dataclass
class Attempt:
    """One execution of a task, as far as it got."""

    number: int
    incarnation: int
    pid: int
    begun: float
    done: float | None = None
    acking: float | None = None
    acked: float | None = None
    later: int = 0
    """How many the same child began after it."""
    killed: float | None = None
    """When the kill that explains it was."""

    def __str__(self) -> str:
        def at(moment: float | None) -> str:
            return "never" if moment is None else f"{moment:.3f}"

        return (
            f"[worker {self.incarnation}, child {self.pid}: begun {at(self.begun)}, done"
            f" {at(self.done)}, acked {at(self.acked)}, killed {at(self.killed)}]"
        )

    @property
    def over(self) -> float:
        """From when on another worker may have the message."""
        return inf if self.acked is not None or self.killed is None else self.killed


@dataclass
class Verdict:
    """Figures, and what was wrong."""

    violations: list[str] = field(default_factory=list)
    figures: dict[str, int] = field(default_factory=dict)

    def wrong(self, what: str, examples: list[str]) -> None:
        """A violation, if there are examples of it."""
        if examples:
            shown = "".join(f"\n    {example}" for example in examples[:10])
            self.violations.append(f"{len(examples)} x {what}:{shown}")


#: The latest attempts of each child, by incarnation and pid.
_Begun = defaultdict[tuple[int, int], deque[Attempt]]


class _Books:
    """All notes, by what they are about."""

    def __init__(self, notes: Iterable[Note], lives: dict[int, Life]) -> None:
        self.lives = lives
        self.sending: dict[int, int] = {}  # and the producer's incarnation
        self.sent: set[int] = set()
        self.failed: set[int] = set()
        self.attempts: dict[int, list[Attempt]] = defaultdict(list)
        self.rejected = 0
        settled: list[Note] = []
        begun: _Begun = defaultdict(lambda: deque(maxlen=3))
        for note in notes:
            if note.kind == ledger.SENDING:
                self.sending[note.number] = note.incarnation
            elif note.kind in (ledger.SENT, ledger.FAILED):
                del self.sending[note.number]
                (self.sent if note.kind == ledger.SENT else self.failed).add(note.number)
            elif note.kind in (ledger.BEGUN, ledger.DONE):
                self._work(note, begun)
            else:
                settled.append(note)
        for attempts in self.attempts.values():
            attempts.sort(key=lambda attempt: attempt.begun)
        for note in settled:
            self._settle(note)
        for attempt in self.all():
            attempt.killed = self._killed(attempt)

    def all(self) -> Iterable[Attempt]:
        return (attempt for attempts in self.attempts.values() for attempt in attempts)

    def _work(self, note: Note, begun: _Begun) -> None:
        child = note.incarnation, note.pid
        if note.kind == ledger.DONE:
            begun[child][-1].done = note.time
            return
        attempt = Attempt(note.number, note.incarnation, note.pid, note.time)
        for earlier in begun[child]:
            earlier.later += 1
        begun[child].append(attempt)
        self.attempts[note.number].append(attempt)

    def _settle(self, note: Note) -> None:
        """Puts down what a main process did about a task, with the attempt that it was about."""
        if note.kind == ledger.REJECTED:
            self.rejected += 1
            return
        own = [
            attempt
            for attempt in self.attempts[note.number]
            if attempt.incarnation == note.incarnation and attempt.begun <= note.time
        ]
        if not own:  # acknowledged and never begun: no orderly task does that
            own = [Attempt(note.number, note.incarnation, 0, note.time)]
            self.attempts[note.number] += own
        if note.kind == ledger.ACKING:
            own[-1].acking = note.time
        else:
            own[-1].acked = note.time

    def _killed(self, attempt: Attempt) -> float | None:
        """When the kill was that explains an attempt without acknowledgement."""
        life = self.lives[attempt.incarnation]
        ends = []
        if life.killed is not None and attempt.later <= 1:
            ends.append(life.killed)
        child = life.children.get(attempt.pid)
        if child is not None and child.sent >= attempt.begun and attempt.later == 0:
            ends.append(max(child.begun, attempt.begun))
        return min(ends, default=None)


def judge(notes: Iterable[Note], lives: dict[int, Life]) -> Verdict:
    """Checks all that can be said without the store."""
    verdict = Verdict()
    books = _Books(notes, lives)
    _judge_sends(books, verdict)
    _judge_attempts(books, verdict)
    repeated = [attempts for attempts in books.attempts.values() if len(attempts) > 1]
    done = Counter(attempt.number for attempt in books.all() if attempt.done is not None)
    verdict.figures |= {
        "sent": len(books.sent),
        "sends_failed": len(books.failed),
        "sends_cut_off": len(books.sending),
        "cut_off_and_there": len(books.sending.keys() & books.attempts.keys()),
        "tasks_begun": len(books.attempts),
        "tasks_done": len(done),
        "attempts": sum(map(len, books.attempts.values())),
        "tasks_begun_again": len(repeated),
        "tasks_done_again": sum(times > 1 for times in done.values()),
        "acked": sum(attempt.acked is not None for attempt in books.all()),
        "acks_unrecorded": sum(
            attempts[-1].acked is None and not any(a.acked for a in attempts)
            for attempts in books.attempts.values()
        ),
        "rejected_child_lost": books.rejected,
        "kills_producer": sum(
            life.killed is not None for life in lives.values() if life.role.startswith("producer")
        ),
        "kills_main": sum(
            life.killed is not None for life in lives.values() if life.role.startswith("worker")
        ),
        "kills_child": sum(len(life.children) for life in lives.values()),
    }
    return verdict


def _judge_sends(books: _Books, verdict: Verdict) -> None:
    lives = books.lives
    verdict.wrong(
        "task lost: sent, and never done",
        [
            f"{number} {' '.join(map(str, books.attempts.get(number, ()))) or 'never begun'}"
            for number in sorted(books.sent)
            if not any(attempt.done for attempt in books.attempts.get(number, ()))
        ],
    )
    verdict.wrong(
        "send that was cut off by no kill",
        [
            f"{number} of {lives[who].role}, incarnation {who}"
            for number, who in books.sending.items()
            if lives[who].killed is None
        ],
    )
    known = books.sent | books.sending.keys()
    verdict.wrong(
        "task that nobody sent",
        [
            f"{number}: {'sending it failed' if number in books.failed else 'never begun to send'}"
            for number in books.attempts
            if number not in known
        ],
    )


def _judge_attempts(books: _Books, verdict: Verdict) -> None:
    unexplained, unstarted, at_once, unfinished, undone = [], [], [], [], []
    for number, attempts in books.attempts.items():
        story = f"{number} {' '.join(map(str, attempts))}"
        for attempt in attempts:
            if attempt.pid == 0:
                unstarted.append(story)
            elif attempt.acked is None and attempt.killed is None:
                unexplained.append(story)
            elif attempt.acked is not None and attempt.done is None:
                undone.append(story)
        at_once.extend(
            story
            for one, other in combinations(attempts, 2)
            if not (one.over <= other.begun or other.over <= one.begun)
        )
        if number not in books.sent and not any(attempt.done for attempt in attempts):
            unfinished.append(story)
    verdict.wrong("attempt neither acknowledged nor explained by a kill", unexplained)
    verdict.wrong("task acknowledged and never begun", unstarted)
    verdict.wrong("task acknowledged before it was done", undone)
    verdict.wrong("duplicate explained by no kill: two had the task", at_once)
    verdict.wrong("task lost: begun, and never done", unfinished)


def judge_counts(verdict: Verdict, name: str, counts: tuple[int, ...], done: int | None) -> None:
    """A queue when all is over: `counts` are ready, delayed, reserved, dead; `done` is its count of
    acknowledgements, None where these are no tasks."""
    states = zip(("ready", "delayed", "reserved", "dead"), counts, strict=True)
    left = [f"{count} {state}" for state, count in states if count]
    if left:
        verdict.violations.append(f"queue {name} isn't empty: {', '.join(left)}")
    begun, kills = verdict.figures["tasks_begun"], verdict.figures["kills_main"]
    if done is not None and not begun - kills <= done <= begun:
        verdict.violations.append(
            f"queue {name} counts {done} acknowledgements of {begun} tasks, by {kills} kills"
        )
