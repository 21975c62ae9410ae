"""Any sequence of calls, by several handles in any order, against a model of a few lines."""

from __future__ import annotations

import contextlib
import secrets

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import celeriac

NAMES = st.sampled_from(["a", "b"])
HANDLES = st.integers(0, 4)


class Locks(RuleBasedStateMachine):
    """The core's calls, in which who waits need not sleep: a line by name, and who is in it."""

    @initialize(permits=st.integers(1, 3))
    def open(self, permits: int) -> None:
        self.store = celeriac.connect(f"shm://t-{secrets.token_hex(6)}?memory=4M")
        self.permits = {"a": 1, "b": permits}
        self.locks = {
            n: self.store._core.lock(f"semaphore:{n}", p) for n, p in self.permits.items()
        }
        self.lines: dict[str, list[int]] = {"a": [], "b": []}
        self.gone: list[tuple[str, int]] = []
        self.last = 0

    def teardown(self) -> None:
        self.store.destroy(force=True)

    def holders(self, name: str) -> list[int]:
        return self.lines[name][: self.permits[name]]

    @rule(name=NAMES)
    def enter(self, name: str) -> None:
        place, token = self.locks[name].enter(0.0)
        self.lines[name].append(place)
        assert (token != 0) == (place in self.holders(name))
        if token:
            assert token > self.last
            self.last = token

    @rule(name=NAMES)
    def try_acquire(self, name: str) -> None:
        place, token = self.locks[name].acquire(0.0, 0.0)
        assert bool(place) == (len(self.lines[name]) < self.permits[name])
        if place:
            self.lines[name].append(place)
            assert token > self.last
            self.last = token

    @rule(name=NAMES, which=HANDLES)
    def leave(self, name: str, which: int) -> None:
        if which < len(self.lines[name]):
            place = self.lines[name].pop(which)
            self.locks[name].leave(place)
            self.gone.append((name, place))

    @rule(name=NAMES, which=HANDLES)
    def release(self, name: str, which: int) -> None:
        if which >= len(self.lines[name]):
            return
        place = self.lines[name][which]
        holds = place in self.holders(name)
        refused = False
        try:
            self.locks[name].release(place)
        except celeriac.LockLost:
            refused = True
        assert refused != holds, "who waits has nothing to release"
        if holds:
            self.lines[name].remove(place)
            self.gone.append((name, place))

    @rule(name=NAMES, ttl=st.sampled_from([0.0, 1000.0]))
    def renew(self, name: str, ttl: float) -> None:
        for place in self.holders(name):
            self.locks[name].renew(place, ttl)

    @precondition(lambda self: self.gone)
    @rule(which=st.randoms())
    def what_is_gone_is_refused(self, which: object) -> None:
        name, place = which.choice(self.gone)  # type: ignore[attr-defined]
        self.locks[name].leave(place)
        with contextlib.suppress(celeriac.LockLost):
            self.locks[name].release(place)
            raise AssertionError("it was released twice")

    @invariant()
    def the_line_is_the_models(self) -> None:
        if not hasattr(self, "lines"):
            return
        for name, line in self.lines.items():
            holders, waiting = self.locks[name].holders()
            assert waiting == max(0, len(line) - self.permits[name])
            tokens = [self.locks[name].wait(place, 0.0) for place in self.holders(name)]
            assert [h["token"] for h in holders] == tokens
            self.last = max(self.last, *tokens, 0)
            for place in line[self.permits[name] :]:
                assert self.locks[name].wait(place, 0.0) == 0


TestLocks = Locks.TestCase
TestLocks.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
