"""Caches: a function that fails under single flight fails once for all who wait for it."""

from __future__ import annotations

import asyncio
import decimal
import itertools
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import celeriac
import celeriac.aio
from celeriac import Cache, Store, flight_errors, single_flight

Python = Callable[[str], "subprocess.Popen[str]"]
N = 12


class Unavailable(Exception):
    """With an __init__ that takes other arguments than it hands on, as many have."""

    def __init__(self, service: str, *, retry_after: float) -> None:
        super().__init__(f"{service} is away")
        self.retry_after = retry_after


@pytest.fixture
def cache(store: Store) -> Cache:
    return store.cache("flights")


def all_at_once(call: Callable[[], object], n: int = N) -> list[object]:
    """What came of `n` calls in as many threads: values and exceptions."""
    start, came = threading.Barrier(n), []

    def run() -> None:
        start.wait(30)
        try:
            came.append(call())
        except BaseException as error:
            came.append(error)

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return came


Until = Callable[[int], None]


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> Until:
    """Sleeps until so many others wait for a flight."""
    who: set[object] = set()
    take_off = single_flight.Flights.take_off

    def counted(*arguments: Any) -> Any:
        took = take_off(*arguments)
        if isinstance(took, single_flight.InTheAir):
            try:
                who.add(asyncio.current_task())
            except RuntimeError:
                who.add(threading.get_ident())
        return took

    def until(n: int) -> None:
        deadline = time.monotonic() + 60
        while len(who) < n:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        who.clear()

    monkeypatch.setattr(single_flight.Flights, "take_off", counted)
    return until


class Fails:
    """Raises, when all others wait for it."""

    def __init__(self, waiting: Until, *errors: BaseException) -> None:
        self.waiting = waiting
        self.errors = iter(errors)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        error = next(self.errors, None)
        if error is not None:
            self.waiting(N - 1)
            raise error
        return "value"


def test_all_threads_that_wait_get_the_error(cache: Cache, waiting: Until) -> None:
    function = Fails(waiting, Unavailable("the shop", retry_after=2.5))
    came = all_at_once(lambda: cache.get_or_set("k", function, wait=60))
    assert function.calls == 1
    for error in came:
        assert isinstance(error, Unavailable)
        assert (error.args, str(error), error.retry_after) == (
            ("the shop is away",),
            "the shop is away",
            2.5,
        )
    assert cache.get_or_set("k", function) == "value"  # who comes later computes, at once
    assert function.calls == 2
    assert cache.get("k") == "value"


def test_each_failure_is_that_of_its_flight(cache: Cache, waiting: Until) -> None:
    function = Fails(waiting, LookupError(1), LookupError(2))
    for number in (1, 2):
        came = all_at_once(lambda: cache.get_or_set("k", function, wait=60))
        assert [getattr(error, "args", None) for error in came] == [(number,)] * N
    assert function.calls == 2


def test_all_processes_that_wait_get_the_error(
    cache: Cache, python: Python, tmp_path: Path
) -> None:
    process = python(f"""
import os
from celeriac import single_flight
cache = store.cache("flights", serializer="json")
waiting, wait = os.pipe(), single_flight.Flights.wait

def told(*arguments):
    os.write(waiting[1], b".")
    single_flight.Flights.wait = wait
    return wait(*arguments)

single_flight.Flights.wait = told

def compute():
    with open({str(tmp_path / "calls")!r}, "a") as calls:
        calls.write("called\\n")
    for _ in range(29):
        os.read(waiting[0], 1)
    raise FileNotFoundError(2, "not there", "a name")

ready, go = os.pipe(), os.pipe()
children = []
for _ in range(30):
    pid = os.fork()
    if pid == 0:
        os.write(ready[1], b".")
        os.read(go[0], 1)
        try:
            cache.get_or_set("k", compute, wait=60)
        except FileNotFoundError as error:
            os._exit(0 if (error.errno, error.filename) == (2, "a name") else 1)
        os._exit(1)
    children.append(pid)
for _ in children:
    os.read(ready[0], 1)
os.write(go[1], b"." * 30)
print("wrong:", sum(os.waitpid(pid, 0)[1] != 0 for pid in children), flush=True)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "wrong: 0\n"
    assert (tmp_path / "calls").read_text() == "called\n"
    assert cache.get_or_set("k", lambda: "value") == "value"


def test_all_compute_at_once_where_the_error_can_not_be_handed_on(
    cache: Cache, waiting: Until
) -> None:
    class Local(Exception):
        pass

    calls, others = [], threading.Barrier(N - 1)

    def compute() -> str:
        calls.append(1)
        if len(calls) == 1:
            waiting(N - 1)
            raise Local
        others.wait(30)  # breaks if they come one after the other
        return "value"

    came = all_at_once(lambda: cache.get_or_set("k", compute, wait=60))
    assert sorted(map(type, came), key=str) == sorted([Local] + [str] * (N - 1), key=str)
    assert len(calls) == N


def test_all_compute_at_once_where_nothing_is_kept(cache: Cache) -> None:
    together = threading.Barrier(N)

    def compute() -> str:
        together.wait(30)  # breaks if they come one after the other
        return "value"

    assert all_at_once(lambda: cache.get_or_set("k", compute, 0, wait=60)) == ["value"] * N


@pytest.mark.parametrize("stale", [0, 1000])
def test_stale_on_error_holds_for_those_who_wait(
    cache: Cache, waiting: Until, stale: float
) -> None:
    cache.get_or_set("k", "old", 0.02, stale_on_error=1000)
    time.sleep(0.03)
    function = Fails(waiting, OSError("away"))
    came = all_at_once(
        lambda: cache.get_or_set("k", function, 60, wait=60, stale=stale, stale_on_error=1000)
    )
    assert came == ["old"] * N
    assert function.calls == 1
    assert cache.get("k") is None


def test_a_set_that_came_meanwhile_is_given(cache: Cache, waiting: Until) -> None:
    came: list[object] = []
    begun, go_on = threading.Event(), threading.Event()

    def compute() -> None:
        begun.set()
        go_on.wait(30)
        cache.set("k", "set meanwhile")
        raise OSError("away")

    def run() -> None:
        with pytest.raises(OSError, match="away"):
            cache.get_or_set("k", compute)

    computes = threading.Thread(target=run)
    computes.start()
    assert begun.wait(30)
    waits = threading.Thread(target=lambda: came.append(cache.get_or_set("k", list, wait=60)))
    waits.start()
    waiting(1)
    go_on.set()
    computes.join()
    waits.join()
    assert came == ["set meanwhile"]


def test_an_interrupt_is_no_failure(cache: Cache, waiting: Until) -> None:
    function = Fails(waiting, KeyboardInterrupt())
    came = all_at_once(lambda: cache.get_or_set("k", function, wait=60))
    assert sorted(map(type, came), key=str) == [KeyboardInterrupt] + [str] * (N - 1)
    assert function.calls == 2


def test_a_value_that_can_not_be_kept_is_an_error_for_all(cache: Cache, waiting: Until) -> None:
    calls = []

    def compute() -> object:
        calls.append(1)
        waiting(N - 1)
        return threading.Lock()

    came = all_at_once(lambda: cache.get_or_set("k", compute, wait=60))
    assert [type(error) for error in came] == [celeriac.SerializationError] * N
    assert len(calls) == 1


def test_tasks_and_threads_together(url: str, waiting: Until) -> None:
    calls = []

    async def compute() -> None:
        calls.append(1)
        await asyncio.to_thread(waiting, N)
        raise Unavailable("the shop", retry_after=1)

    async def main() -> None:
        async with celeriac.aio.connect(url) as store:
            cache = store.cache()
            tasks = [asyncio.create_task(cache.get_or_set("k", compute)) for _ in range(N)]
            await asyncio.sleep(0)
            thread = asyncio.to_thread(cache.sync.get_or_set, "k", list)
            came = await asyncio.gather(*tasks, thread, return_exceptions=True)
            assert [type(error) for error in came] == [Unavailable] * (N + 1)
            assert len(calls) == 1
            assert await cache.get_or_set("k", lambda: "value") == "value"

    asyncio.run(main())


def test_failures_that_nobody_waits_for_leave_nothing(store: Store, cache: Cache) -> None:
    """Or a client that asks for what isn't there would fill the store."""

    def fail() -> None:
        raise Unavailable("database", retry_after=1)

    for i in range(50):
        with pytest.raises(Unavailable):
            cache.get_or_set(f"user {i}", fail)
    assert store.stats()["tables"][single_flight.TABLE]["entries"] == 0


def test_failures_are_forgotten(
    store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight, "FAILED", 0.05)
    for i in range(100):
        with pytest.raises(ZeroDivisionError):
            cache.get_or_set(f"k{i}", lambda: 1 // 0)
    time.sleep(0.06)
    assert store.table(single_flight.TABLE).items() == []


# ------------------------------------------------------------------ how an error travels


class WithProperty(Exception):
    @property
    def code(self) -> int:
        return 5


@pytest.mark.parametrize(
    "error",
    [
        ValueError(),
        KeyError("k"),
        OSError(13, "no", "file"),
        ConnectionResetError("peer"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ImportError("no module", name="x"),
        StopIteration(5),
        celeriac.ValueTooLarge("large"),
        celeriac.DeadlockError("itself"),
        subprocess.CalledProcessError(1, ["a", "b"], b"out"),
        Unavailable("x", retry_after=1),
        WithProperty("a", 1, (2, None)),
        LookupError("ü" * 1000, {"a": [1.5]}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_made_again(error: Exception) -> None:
    again = flight_errors.read(flight_errors.written(error))
    assert type(again) is type(error)
    assert again.args == error.args
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_what_can_not_be_said() -> None:
    class Local(Exception):
        pass

    with_lock = ValueError("a")
    with_lock.lock = threading.Lock()  # type: ignore[attr-defined]
    a_class = decimal.InvalidOperation([decimal.InvalidOperation])
    for error in (Local(), with_lock, a_class, ValueError(object()), ValueError("x" * 10_000)):
        assert flight_errors.written(error) == b""


@pytest.mark.parametrize(
    "parts",
    [
        ("builtins", "eval", ("1",), {}),
        ("os", "system", ("true",), {}),
        ("builtins", "dict", (), {}),
        ("builtins", "KeyboardInterrupt", (), {}),
        ("no.such.module", "Error", (), {}),
        ("builtins", "NoSuchError", (), {}),
        ("builtins", "ValueError", 5, {}),
        ("builtins", "ValueError", (), {5: 5}),
        ("builtins", "ValueError"),
        "text",
        5,
    ],
)
def test_what_is_no_error_is_read_as_none(parts: object) -> None:
    pack = celeriac._core.pack
    if isinstance(parts, tuple):
        parts = (*parts[:2], *(pack(part, False) for part in parts[2:]))
    assert flight_errors.read(pack(parts, False)) is None


def test_no_pickle_is_read() -> None:
    pack = celeriac._core.pack
    for first, second, third in itertools.product((False, True), repeat=3):
        parts = ("builtins", "ValueError", pack(("x",), first), pack({}, second))
        read = flight_errors.read(pack(parts, third))
        assert (read is None) is (first or second or third)


def test_damaged_bytes_are_none_or_an_error() -> None:
    made = flight_errors.written(Unavailable("x", retry_after=1))
    for at, bit in itertools.product(range(len(made)), range(8)):
        data = bytearray(made)
        data[at] ^= 1 << bit
        assert isinstance(flight_errors.read(bytes(data)), (Exception, type(None)))
        assert flight_errors.read(made[:at]) is None


def _no_more() -> None:
    raise AttributeError("the class is gone")


class GoneSoon:
    def __reduce__(self) -> Any:
        return _no_more, ()


@pytest.mark.parametrize("tags", [(), ("t",)])
def test_a_value_that_can_not_be_read_is_computed_anew_by_one(
    cache: Cache, waiting: Until, tags: tuple[str, ...]
) -> None:
    cache.set("k", GoneSoon(), None, tags=tags)
    before = cache.stats()
    calls = []

    def compute() -> str:
        calls.append(1)
        waiting(N - 1)
        return "new"

    came = all_at_once(lambda: cache.get_or_set("k", compute, wait=60))
    assert came == ["new"] * N
    assert len(calls) == 1
    assert cache.get("k") == "new"
    after = cache.stats()
    assert (after.hits - before.hits, after.misses - before.misses) == (1, N)


def test_a_value_that_can_not_be_read_is_replaced_whatever_computes(cache: Cache) -> None:
    for key, default, options in (
        ("a", "plain", {}),
        ("b", lambda: "called", {"lock": False}),
        ("c", lambda: "early", {"early": 1.0}),
        ("d", lambda: "tagged", {"tags": ["t"]}),
    ):
        cache.set(key, GoneSoon(), None)
        with pytest.raises(celeriac.SerializationError, match="the class is gone"):
            cache.get(key)
        found = cache.get_or_set(key, default, **options)
        assert cache.get(key) == found in ("plain", "called", "early", "tagged")


def test_a_set_wins_over_what_replaces_a_value_that_can_not_be_read(cache: Cache) -> None:
    cache.set("k", GoneSoon())

    def compute() -> str:
        cache.set("k", "set meanwhile")
        return "computed"

    assert cache.get_or_set("k", compute) == "set meanwhile"
    cache.set("k", GoneSoon())

    def unread() -> str:
        cache.set("k", GoneSoon(), tags=["t"])
        return "computed"

    assert cache.get_or_set("k", unread) == "computed"
