"""The judge of the Celery soak sees what it is there to see; celery_soak.py is run by hand.

Made-up ledgers, each with one thing wrong. Nothing here needs Celery.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import celery_soak_ledger as ledger
import pytest
from celery_soak_ledger import Kill, Life, Note, Notes, Roster, read
from celery_soak_verdict import Verdict, judge, judge_counts

P, KILLED_P, W, KILLED_W = 1, 2, 3, 4  # incarnations
CHILD, KILLED_CHILD, ORPHAN, OTHER = 31, 32, 41, 42  # pids of children
PARENTS = {CHILD: W, KILLED_CHILD: W, ORPHAN: KILLED_W, OTHER: KILLED_W}
KILL_P, KILL_W, KILL_CHILD = 50.0, 60.0, 70.0  # when


class Story:
    """A ledger in the making; each note is a tenth of a second after the one before."""

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.now = 0.0
        self.lives = {
            P: Life(P, "producer0", 10),
            KILLED_P: Life(KILLED_P, "producer1", 20, killed=KILL_P),
            W: Life(W, "worker0", 30, children={KILLED_CHILD: Kill(KILL_CHILD, KILL_CHILD + 0.5)}),
            KILLED_W: Life(KILLED_W, "worker1", 40, killed=KILL_W),
        }

    def note(self, kind: str, number: int, incarnation: int, pid: int) -> None:
        self.now += 0.1
        self.notes.append(Note(kind, number, self.now, incarnation, pid))

    def send(self, number: int, by: int = P, end: str | None = ledger.SENT) -> None:
        for kind in (ledger.SENDING, end):
            if kind:
                self.note(kind, number, by, self.lives[by].pid)

    def work(self, number: int, child: int, done: bool = True, acked: bool = True) -> None:
        main = PARENTS[child]
        self.note(ledger.BEGUN, number, main, child)
        if done:
            self.note(ledger.DONE, number, main, child)
        if acked:
            for kind in (ledger.ACKING, ledger.ACKED):
                self.note(kind, number, main, self.lives[main].pid)

    def verdict(self) -> Verdict:
        # As read() gives them: process by process.
        return judge(sorted(self.notes, key=lambda note: (note.incarnation, note.pid)), self.lives)


def fine(story: Story) -> None:
    story.send(1)
    story.work(1, CHILD)
    story.send(2, KILLED_P, end=None)  # killed in delay(): it was sent all the same
    story.work(2, CHILD)
    story.now = KILL_W - 1
    story.send(3)  # its main process is killed after it was done, the orphan of 4 goes on
    story.send(4)
    story.work(3, OTHER, acked=False)
    story.note(ledger.BEGUN, 4, KILLED_W, ORPHAN)
    story.now = KILL_W
    story.work(3, CHILD)
    story.work(4, CHILD)
    story.note(ledger.DONE, 4, KILLED_W, ORPHAN)
    story.now = KILL_CHILD - 1
    story.send(5)  # its child is killed
    story.work(5, KILLED_CHILD, done=False, acked=False)
    story.now = KILL_CHILD
    story.note(ledger.REJECTED, 5, W, 30)
    story.work(5, CHILD)


def an_orphan_begins_after_the_other_is_done(story: Story) -> None:
    story.send(9)
    story.now = KILL_W + 1
    story.work(9, CHILD)
    story.work(9, ORPHAN, acked=False)


def killed_between_the_ack_and_its_note(story: Story) -> None:
    story.send(9)
    story.work(9, OTHER, acked=False)
    story.note(ledger.ACKING, 9, KILLED_W, 40)


def killed_with_the_next_handed_out_and_nothing_acknowledged(story: Story) -> None:
    story.now = KILL_W - 1
    for number in (9, 10):
        story.send(number)
        story.work(number, OTHER, acked=False)
    story.now = KILL_W
    for number in (9, 10):
        story.work(number, CHILD)


def forgotten_by_a_worker_that_is_killed_later(story: Story) -> None:
    story.now = KILL_W - 2
    for number in (9, 10, 11):
        story.send(number)
        story.work(number, OTHER, acked=number > 9)
    story.now = KILL_W
    story.work(9, CHILD)


def begun_while_its_child_is_being_killed(story: Story) -> None:
    story.send(9)
    story.now = KILL_CHILD  # the signal is sent half a second later
    story.work(9, KILLED_CHILD, done=False, acked=False)
    story.work(9, OTHER)


def begun_after_its_child_was_killed(story: Story) -> None:
    story.send(9)
    story.now = KILL_CHILD + 0.5
    story.work(9, KILLED_CHILD, done=False, acked=False)
    story.work(9, OTHER)


def refused(story: Story) -> None:
    story.send(9, end=ledger.FAILED)


def never_delivered(story: Story) -> None:
    story.send(9)


def begun_and_lost(story: Story) -> None:
    story.send(9)
    story.now = KILL_W - 1
    story.work(9, ORPHAN, done=False, acked=False)


def begun_unsent_and_lost(story: Story) -> None:
    story.send(9, KILLED_P, end=None)
    story.work(9, ORPHAN, done=False, acked=False)


def acknowledged_undone(story: Story) -> None:
    story.send(9)
    story.work(9, CHILD, done=False)
    story.work(9, CHILD)


def acknowledged_unbegun(story: Story) -> None:
    story.send(9)
    story.note(ledger.ACKED, 9, W, 30)


def done_twice_by_the_living(story: Story) -> None:
    story.send(9)
    story.work(9, CHILD, acked=False)
    story.work(9, CHILD)


def acknowledged_twice(story: Story) -> None:
    story.send(9)
    story.work(9, CHILD)
    story.work(9, OTHER)


def begun_before_the_kill_that_would_explain_it(story: Story) -> None:
    story.send(9)
    story.work(9, OTHER, acked=False)
    story.work(9, CHILD)  # while worker1 lives and has it


def begun_before_its_child_is_killed(story: Story) -> None:
    story.send(9)
    story.work(9, KILLED_CHILD, acked=False)
    story.work(9, OTHER, acked=False)


def delivered_after_its_acknowledgement(story: Story) -> None:
    story.send(9)
    story.work(9, CHILD)
    story.now = KILL_W - 1
    story.work(9, OTHER, acked=False)


def forgotten_by_a_child_that_is_killed_later(story: Story) -> None:
    story.send(9)
    story.send(10)
    story.work(9, KILLED_CHILD, acked=False)
    story.work(10, KILLED_CHILD)
    story.now = KILL_CHILD
    story.work(9, CHILD)


def never_settled(story: Story) -> None:
    story.send(9)
    story.work(9, CHILD, acked=False)


def done_and_not_sent(story: Story) -> None:
    story.work(9, CHILD)


def failed_and_done(story: Story) -> None:
    story.send(9, end=ledger.FAILED)
    story.work(9, CHILD)


def cut_off_by_nothing(story: Story) -> None:
    story.send(9, end=None)


@pytest.mark.parametrize(
    "story",
    [
        fine,
        an_orphan_begins_after_the_other_is_done,
        killed_between_the_ack_and_its_note,
        killed_with_the_next_handed_out_and_nothing_acknowledged,
        begun_while_its_child_is_being_killed,
        refused,
    ],
)
def test_what_kills_explain(story: Callable[[Story], None]) -> None:
    made = Story()
    story(made)
    assert made.verdict().violations == []


UNEXPLAINED = "attempt neither acknowledged nor explained by a kill"
AT_ONCE = "duplicate explained by no kill"


@pytest.mark.parametrize(
    ("story", "complaint"),
    [
        (never_delivered, "sent, and never done:\n    9 never begun"),
        (begun_and_lost, "sent, and never done:\n    9 [worker 4, child 41"),
        (begun_unsent_and_lost, "begun, and never done"),
        (acknowledged_undone, "acknowledged before it was done"),
        (acknowledged_unbegun, "acknowledged and never begun"),
        (done_twice_by_the_living, UNEXPLAINED),
        (done_twice_by_the_living, AT_ONCE),
        (acknowledged_twice, AT_ONCE),
        (begun_before_the_kill_that_would_explain_it, AT_ONCE),
        (begun_before_its_child_is_killed, AT_ONCE),
        (begun_after_its_child_was_killed, UNEXPLAINED),
        (delivered_after_its_acknowledgement, AT_ONCE),
        (forgotten_by_a_child_that_is_killed_later, UNEXPLAINED),
        (forgotten_by_a_worker_that_is_killed_later, UNEXPLAINED),
        (never_settled, UNEXPLAINED),
        (done_and_not_sent, "nobody sent:\n    9: never begun to send"),
        (failed_and_done, "nobody sent:\n    9: sending it failed"),
        (cut_off_by_nothing, "cut off by no kill:\n    9 of producer0"),
    ],
)
def test_what_nothing_explains(story: Callable[[Story], None], complaint: str) -> None:
    made = Story()
    fine(made)
    made.now = 0
    story(made)
    violations = made.verdict().violations
    assert any(complaint in violation for violation in violations), violations


def test_figures() -> None:
    made = Story()
    fine(made)
    figures = made.verdict().figures
    assert {name: figures[name] for name in figures if not name.startswith("kills")} == {
        "sent": 4,
        "sends_failed": 0,
        "sends_cut_off": 1,
        "cut_off_and_there": 1,
        "tasks_begun": 5,
        "tasks_done": 5,
        "attempts": 8,
        "tasks_begun_again": 3,
        "tasks_done_again": 2,
        "acked": 5,
        "acks_unrecorded": 0,
        "rejected_child_lost": 1,
    }


@pytest.mark.parametrize(
    ("counts", "done", "complaint"),
    [
        ((0, 0, 0, 0), 10, None),
        ((0, 0, 0, 0), 9, None),  # the one kill was in the middle of an acknowledgement
        ((0, 0, 0, 0), None, None),
        ((0, 0, 0, 0), 8, "counts 8 acknowledgements of 10 tasks"),
        ((0, 0, 0, 0), 11, "counts 11 acknowledgements of 10 tasks"),
        ((1, 0, 0, 0), 10, "1 ready"),
        ((0, 2, 0, 0), 10, "2 delayed"),
        ((0, 0, 3, 0), 10, "3 reserved"),
        ((0, 0, 0, 4), None, "4 dead"),
    ],
)
def test_the_store_at_the_end(
    counts: tuple[int, ...], done: int | None, complaint: str | None
) -> None:
    verdict = Verdict(figures={"tasks_begun": 10, "kills_main": 1})
    judge_counts(verdict, "q", counts, done)
    if complaint is None:
        assert verdict.violations == []
    else:
        assert complaint in verdict.violations[0]


def test_the_ledger_says_who_noted_what(tmp_path: Path) -> None:
    before = time.monotonic()
    notes = Notes(tmp_path, "worker2", 7)
    notes.note(ledger.ACKED, 12)
    child = os.fork()
    if child == 0:
        notes.note(ledger.BEGUN, 13)
        os._exit(0)
    os.waitpid(child, 0)
    notes.note(ledger.ACKED, 14)
    Roster(tmp_path).started("worker2", 5)
    (tmp_path / "log.000007").write_text("no part of it")
    found = {(note.kind, note.number, note.incarnation, note.pid) for note in read(tmp_path)}
    assert found == {
        (ledger.ACKED, 12, 7, os.getpid()),
        (ledger.BEGUN, 13, 7, child),
        (ledger.ACKED, 14, 7, os.getpid()),
    }
    assert all(before <= note.time <= time.monotonic() for note in read(tmp_path))


def test_the_roster_keeps_the_first_kill(tmp_path: Path) -> None:
    roster = Roster(tmp_path)
    life = roster.started("worker0", 5)
    before = time.monotonic()
    roster.killing(life, 6)
    assert before <= life.children[6].begun < life.children[6].sent == float("inf")
    roster.killed(life, 6)
    first = dict(life.children)
    assert life.children[6].begun <= life.children[6].sent <= time.monotonic()
    roster.killing(life, 6)
    roster.killed(life, 6)
    assert life.children == first
    assert life.killed is None
    roster.killing(life, 5)
    assert life.killed is not None
    assert roster.next == 2
    lines = [line.split()[:-1] for line in (tmp_path / "killer").read_text().splitlines()]
    assert lines[0] == ["started", "1", "worker0", "5"]
    assert lines[-1] == ["killed", "1", "worker0", "5"]
