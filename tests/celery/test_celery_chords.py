"""Chords without workers: SIGKILL between each two steps of the protocol, and what may be repeated.

The parts are what a chord has really sent; a forked child returns them as a worker's process does.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from celery import Celery, chain, chord, group, states
from celery.app.task import Context
from celery.exceptions import ChordError
from celery.result import AsyncResult

import celeriac
from celeriac.celery import chords
from celeriac.celery.results import ResultBackend

#: Where a process may die on its way through one part, the last of its chord.
STEPS = ("intended", "stored", "claimed", "joined", "sent", "marked", "done")


@pytest.fixture
def app(store_url: str) -> Iterator[Celery]:
    app = Celery("chords", broker=f"celeriac+{store_url}", backend=f"celeriac+{store_url}")

    @app.task(shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(shared=False)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(shared=False)
    def note(text: str) -> None:
        pass

    yield app
    app.close()


@pytest.fixture
def backend(app: Celery) -> ResultBackend:
    assert isinstance(app.backend, ResultBackend)
    return app.backend


@pytest.fixture
def add(app: Celery) -> Any:
    return app.tasks[next(name for name in app.tasks if name.endswith(".add"))]


@pytest.fixture
def total(app: Celery) -> Any:
    return app.tasks[next(name for name in app.tasks if name.endswith(".total"))]


@pytest.fixture
def note(app: Celery) -> Any:
    return app.tasks[next(name for name in app.tasks if name.endswith(".note"))]


class Sent:
    """A task message that was taken from the queue."""

    def __init__(self, message: Any) -> None:
        self.args, self.kwargs, embed = message.decode()
        self.id: str = message.headers["id"]
        self.name = message.headers["task"].rpartition(".")[2]
        self.request = Context({**message.headers, **embed, "args": self.args})


def taken(app: Celery) -> list[Sent]:
    """All messages that wait, taken and acknowledged."""
    sent = []
    with app.connection_for_read() as connection, connection.channel() as channel:
        while (message := channel.basic_get("celery", no_ack=True)) is not None:
            sent.append(Sent(message))
    return sent


def dying(at: str, work: Callable[[], Any], nth: int = 1) -> None:
    """Do the work in another process, which dies when it comes to a step for the nth time."""
    child = os.fork()
    if child == 0:
        passed: list[str] = []

        def step(name: str) -> None:
            passed.append(name)
            if passed.count(at) == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            chords.step = step
            work()
        finally:
            os._exit(77)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL, f"it never came to {at!r}"


def return_part(backend: ResultBackend, part: Sent, result: Any = None) -> None:
    value = sum(part.args) if result is None else result
    backend.mark_as_done(part.id, value, part.request)


def chord_error(backend: ResultBackend, result: AsyncResult) -> str:
    """How the chord failed: its callback's result, without those of its parents."""
    error = backend.get_result(result.id)
    assert isinstance(error, ChordError)
    return str(error)


def intents(backend: ResultBackend) -> int:
    return len(backend.chords.parts.items())


@pytest.mark.parametrize("at", STEPS)
def test_the_last_part_may_die_at_each_step(
    app: Celery, backend: ResultBackend, add: Any, total: Any, at: str
) -> None:
    result = chord([add.s(i, 1) for i in range(3)])(total.s())
    *others, last = taken(app)
    for part in others:
        return_part(backend, part)
    assert taken(app) == []
    dying(at, lambda: return_part(backend, last))
    assert backend.chords.recover() == 1
    callbacks = taken(app)
    assert {(each.id, each.name, str(each.args)) for each in callbacks} == {
        (result.id, "total", "[[1, 2, 3]]")
    }
    assert len(callbacks) == (2 if at == "sent" else 1), "C5: the one way to a doubled callback"
    assert backend.get_result(last.id) == 3
    assert intents(backend) == 0
    assert backend.chords.recover() == 0


@pytest.mark.parametrize("at", ["intended", "stored", "counted", "done"])
def test_another_part_may_die_at_each_step(
    app: Celery, backend: ResultBackend, add: Any, total: Any, at: str
) -> None:
    chord([add.s(i, 1) for i in range(3)])(total.s())
    first, *others = taken(app)
    dying(at, lambda: return_part(backend, first))
    for part in others:
        return_part(backend, part)
    assert backend.chords.recover() == 1
    (callback,) = taken(app)
    assert callback.args == [[1, 2, 3]]
    assert intents(backend) == 0


@pytest.mark.parametrize("at", ["taken over", "stored", "claimed", "joined", "marked", "done"])
def test_who_takes_over_may_die_too(
    app: Celery, backend: ResultBackend, add: Any, total: Any, at: str
) -> None:
    chord([add.s(1, 1)])(total.s())
    (part,) = taken(app)
    dying("intended", lambda: return_part(backend, part))
    dying(at, backend.chords.recover)
    assert backend.chords.recover() == 1
    (callback,) = taken(app)
    assert callback.args == [[2]]
    assert intents(backend) == 0


@pytest.mark.parametrize("at", ["intended", "stored", "counted", "done"])
def test_a_failure_may_die_at_each_step_on_its_way_along_a_chain(
    app: Celery, backend: ResultBackend, add: Any, total: Any, at: str
) -> None:
    body = total.s()
    result = chord([chain(add.s(1, 1), add.s(1)), add.s(2, 2)])(body)
    parts = taken(app)
    failing = next(part for part in parts if part.request.chain)
    (other,) = (part for part in parts if part is not failing)
    error = ValueError("no")
    dying(at, lambda: backend.mark_as_failure(failing.id, error, None, failing.request))
    assert backend.chords.recover() == 1
    return_part(backend, other)
    assert taken(app) == []
    assert "ValueError" in chord_error(backend, result)
    assert isinstance(backend.get_result(failing.id), ValueError)


@pytest.mark.parametrize(
    ("at", "nth"), [("claimed", 1), ("stored", 2), ("counted", 1), ("sent", 1), ("marked", 1)]
)
def test_a_chord_that_fails_within_another_may_die_on_the_way(
    app: Celery, backend: ResultBackend, add: Any, total: Any, at: str, nth: int
) -> None:
    """The inner chord's error goes to its callback, and along a chain to a part of the outer."""
    inner = chord([add.s(1, 1)], total.s())
    result = chord([chain(inner, add.s(1)), add.s(2, 2)])(total.s())
    parts = taken(app)
    failing = next(part for part in parts if part.args == [1, 1])
    (other,) = (part for part in parts if part is not failing)
    error = ValueError("no")
    fail = backend.mark_as_failure
    dying(at, lambda: fail(failing.id, error, None, failing.request), nth)
    assert backend.chords.recover() == 1
    assert taken(app) == []
    return_part(backend, other)
    assert "ValueError" in chord_error(backend, result)
    assert taken(app) == []


def test_a_part_that_comes_again_counts_once(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    chord([add.s(i, 1) for i in range(3)])(total.s())
    first, second, third = taken(app)
    for part in (first, first, second, first, second):
        return_part(backend, part)
    assert taken(app) == []
    return_part(backend, third)
    assert len(taken(app)) == 1
    for part in (third, first):
        return_part(backend, part)
    assert taken(app) == []


def test_a_part_that_runs_again_finishes_what_the_claimant_left(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    chord([add.s(1, 1)])(total.s())
    (part,) = taken(app)
    dying("claimed", lambda: return_part(backend, part))
    return_part(backend, part)  # delivered again: its worker acknowledged late
    assert len(taken(app)) == 1
    assert backend.chords.recover() == 1
    assert taken(app) == []


def test_of_many_parts_at_once_one_sends(
    app: Celery, backend: ResultBackend, add: Any, total: Any, store_url: str
) -> None:
    chord([add.s(i, 0) for i in range(64)])(total.s())
    parts = taken(app)
    barrier = threading.Barrier(8)

    def work(mine: list[Sent]) -> None:
        own = ResultBackend(app=app, url=store_url)
        barrier.wait(30)
        for part in mine:
            return_part(own, part)

    threads = [threading.Thread(target=work, args=(parts[n::8],)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    (callback,) = taken(app)
    assert callback.args == [list(range(64))]


def test_an_exception_between_the_steps_leaves_the_rest_to_the_next(
    app: Celery,
    backend: ResultBackend,
    add: Any,
    total: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chord([add.s(1, 1)])(total.s())
    (part,) = taken(app)

    def step(name: str) -> None:
        if name == "claimed":
            raise KeyboardInterrupt

    monkeypatch.setattr(chords, "step", step)
    with pytest.raises(KeyboardInterrupt):
        return_part(backend, part)
    monkeypatch.undo()
    assert taken(app) == []
    assert backend.chords.recover() == 1
    assert len(taken(app)) == 1


def test_a_process_of_another_application_leaves_it(
    app: Celery, backend: ResultBackend, add: Any, total: Any, store_url: str
) -> None:
    chord([add.s(1, 1)])(total.s())
    (part,) = taken(app)
    dying("stored", lambda: return_part(backend, part))
    other = Celery("other", broker=f"celeriac+{store_url}", backend=f"celeriac+{store_url}")
    assert other.backend.chords.recover() == 0
    other.close()
    assert backend.chords.recover() == 1
    assert len(taken(app)) == 1


def test_a_waiter_sends_the_callback_of_a_worker_that_died(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    """No worker is there; who waits for the callback's result is woken by the death."""
    result = chord([add.s(1, 1)])(total.s())
    (part,) = taken(app)
    seen: list[Sent] = []

    def work() -> None:
        while not seen:
            seen.extend(taken(app))
        backend.store_result(seen[0].id, 42, states.SUCCESS)

    timer = threading.Timer(
        0.3, lambda: (dying("claimed", lambda: return_part(backend, part)), work())
    )
    timer.start()
    assert result.get(timeout=60) == 42
    timer.join()
    assert len(seen) == 1


def test_a_header_is_made_as_it_is_sent(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    sent: list[Sent] = []

    def header() -> Iterator[Any]:
        for number in range(4):
            sent.extend(taken(app))
            if number == 3:
                assert sent, "it was unrolled too early"
            yield add.s(number, 0)

    chord(header(), total.s())()
    for part in [*sent, *taken(app)]:
        return_part(backend, part)
    (callback,) = taken(app)
    assert callback.args == [[0, 1, 2, 3]]


@pytest.mark.parametrize("size", [1, 100])
def test_parts_in_any_order_give_results_in_the_header_s(
    app: Celery, backend: ResultBackend, add: Any, total: Any, size: int
) -> None:
    chord(add.s(i, 0) for i in range(size))(total.s())
    for part in reversed(taken(app)):
        return_part(backend, part)
    (callback,) = taken(app)
    assert callback.args == [list(range(size))]


def test_the_callback_gets_results_that_the_tasks_ignore(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    chord([add.s(1, 1).set(ignore_result=True), add.s(2, 2)])(total.s())
    hidden, shown = sorted(taken(app), key=lambda part: part.args)
    assert hidden.request.ignore_result
    return_part(backend, hidden)
    assert backend.get_state(hidden.id) == states.PENDING
    return_part(backend, shown)
    (callback,) = taken(app)
    assert callback.args == [[2, 4]]
    assert backend.table.get(backend.get_key_for_task(hidden.id)) is None
    assert backend.get_result(shown.id) == 4


def test_a_header_that_failed_fails_the_callback_and_calls_its_errback(
    app: Celery, backend: ResultBackend, add: Any, total: Any, note: Any
) -> None:
    result = chord([add.s(1, 1), add.s(2, 2)])(total.s().on_error(note.si("errback")))
    first, second = taken(app)
    backend.mark_as_failure(first.id, KeyError("k"), None, first.request)
    assert taken(app) == [], "it waits for all parts"
    return_part(backend, second)
    (errback,) = taken(app)
    assert (errback.name, errback.args) == ("note", ["errback"])
    assert f"Dependency {first.id} raised KeyError" in chord_error(backend, result)


def test_a_revoked_part_fails_the_chord(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    result = chord([add.s(1, 1)])(total.s())
    (part,) = taken(app)
    backend.mark_as_revoked(part.id, "revoked", part.request)
    assert "TaskRevokedError" in chord_error(backend, result)


def test_groups_within_the_header_keep_their_shape(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    header = [chain(add.s(0, 1), group(add.s(i) for i in range(2))), add.s(5, 5)]
    chord(header)(total.s())
    callback = None
    while callback is None:
        for part in taken(app):
            if part.name == "total":
                callback = part
                continue
            if part.request.chain:  # what Celery does before it stores the result
                follower = app.signature(part.request.chain[-1])
                follower.apply_async((sum(part.args),), chain=part.request.chain[:-1])
            return_part(backend, part)
    assert callback.args == [[[1, 2], 10]]


def test_a_part_can_be_added_while_the_chord_runs(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    chord([add.s(1, 1)])(total.s())
    (part,) = taken(app)
    backend.add_to_chord(part.request.group, AsyncResult("more", app=app))
    return_part(backend, part)
    assert taken(app) == []
    more = Context(part.request.__dict__, id="more", group_index=None)
    backend.mark_as_done("more", 5, more)
    (callback,) = taken(app)
    assert callback.args == [[2, 5]]


def test_a_callback_that_can_t_be_sent_fails(
    app: Celery, backend: ResultBackend, add: Any, total: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = chord([add.s(1, 1)])(total.s())
    (part,) = taken(app)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise celeriac.QueueFull("no room")

    monkeypatch.setattr(type(total), "apply_async", fail)
    return_part(backend, part)
    assert "no room" in chord_error(backend, result)


def test_what_a_chord_needed_is_gone_when_it_is_done(
    app: Celery, backend: ResultBackend, add: Any, total: Any
) -> None:
    before = len(backend.table.items())
    chord([add.s(i, 1) for i in range(3)])(total.s())
    parts = taken(app)
    for part in parts:
        return_part(backend, part)
    left = {key for key, _ in backend.table.items()}
    assert len(left) == before + 3 + 1, left  # three results, and that the chord is done
    assert backend.chords.parts.items() == []
