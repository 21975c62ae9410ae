"""`@lock_once`: a function of which one call runs at a time."""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from waiting import LONG, until

import celeriac

Python = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def said() -> list[str]:
    """What was said of calls that did not run."""
    return []


@pytest.fixture(autouse=True)
def _default(store: celeriac.Store) -> Iterator[None]:
    celeriac.set_default(store)
    yield
    celeriac.set_default(None)


def running(function: Callable[..., Any], *arguments: Any) -> threading.Thread:
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    return thread


def test_one_call_runs_at_a_time(store: celeriac.Store, said: list[str]) -> None:
    go, ran = threading.Event(), []

    @celeriac.lock_once("report", message=said.append, skipped="skipped")
    def report(day: int, other: int = 0) -> str:
        """Text."""
        ran.append(day)
        go.wait(LONG)
        return f"{day}"

    assert report.__doc__ == "Text."
    thread = running(report, 1)
    until(lambda: ran)
    assert report(2) == "skipped"
    assert said[0].startswith("report is running already in process ")
    assert said[0].endswith("): skipped")
    go.set()
    thread.join()
    assert report(3) == "3"
    assert ran == [1, 3]


def test_keys(store: celeriac.Store, said: list[str]) -> None:
    @celeriac.lock_once("report:{day}", message=said.append)
    def by_day(day: int) -> list[str]:
        return [info.name for info in store.locks()]

    @celeriac.lock_once(lambda day: f"day {day}")
    def called(day: int) -> list[str]:
        return [info.name for info in store.locks()]

    assert by_day(day=5) == ["report:5"]
    assert called(6) == ["day 6"]
    with pytest.raises(celeriac.ConfigurationError, match=r"has no argument 'days'"):
        celeriac.lock_once("report:{days}")(by_day)
    with pytest.raises(TypeError, match="key= is a template or a callable, not int"):
        celeriac.lock_once(5)(by_day)  # type: ignore[arg-type]
    with pytest.raises(celeriac.ConfigurationError, match=r"give key="):
        celeriac.lock_once()(lambda: None)


def named() -> list[str]:
    return [info.name for info in celeriac.get_default().locks()]


def test_the_name_of_the_function(store: celeriac.Store) -> None:
    (name,) = celeriac.lock_once()(named)()
    assert name.endswith("test_lock_once.named")


def test_skipping_may_raise(store: celeriac.Store, said: list[str]) -> None:
    class Busy(Exception):
        pass

    @celeriac.lock_once("x", skipped=Busy, message=said.append, store=lambda: store)
    def work() -> None: ...

    with store.lock("x"), pytest.raises(Busy):
        work()


def test_what_is_raised_inside_is_raised(store: celeriac.Store) -> None:
    @celeriac.lock_once("x")
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.locks() == []


def test_waiting(store: celeriac.Store) -> None:
    @celeriac.lock_once("x", timeout=LONG)
    def work() -> int:
        return 1

    lock = store.lock("x")
    lock.acquire()
    thread = running(work)
    until(lock.waiting)
    lock.release()
    thread.join(LONG)
    with pytest.raises(ValueError, match="timeout=-1"):
        celeriac.lock_once("x", timeout=-1)


def test_async_functions(store: celeriac.Store, said: list[str]) -> None:
    @celeriac.lock_once("x", message=said.append)
    async def work(fails: bool = False) -> int:
        await asyncio.sleep(0.02)
        if fails:
            raise ZeroDivisionError
        return 1

    async def main() -> None:
        assert sorted(await asyncio.gather(work(), work(), work()), key=str) == [1, None, None]
        with pytest.raises(ZeroDivisionError):
            await work(True)
        assert await work() == 1

    asyncio.run(main())
    assert len(said) == 2


def test_a_management_command(store: celeriac.Store) -> None:
    class Output:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

    class Command:
        stdout = Output()

        @celeriac.lock_once("command")
        def handle(self, *args: Any, **options: Any) -> str:
            return "ran"

    command = Command()
    assert command.handle(1, verbosity=1) == "ran"
    with store.lock("command"):
        assert command.handle(1, verbosity=1) is None
    assert command.stdout.text.startswith("command is running already")


def printed(text: str) -> None:
    print(text)


def test_to_standard_error(store: celeriac.Store, capsys: pytest.CaptureFixture[str]) -> None:
    with store.lock("x"):
        assert celeriac.lock_once("x")(printed)("not printed") is None
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("x is running already in process ")


def test_a_process_that_died_left_nothing(store: celeriac.Store, python: Python) -> None:
    process = python(
        "@celeriac.lock_once('job', store=store)\ndef job():\n"
        "    print('in', flush=True)\n    time.sleep(100)\njob()"
    )
    assert process.stdout is not None
    process.stdout.readline()
    job = celeriac.lock_once("job", skipped="skipped", message=lambda text: None)(lambda: "ran")
    assert job() == "skipped"
    process.kill()
    until(lambda: job() == "ran")


def test_without_a_store() -> None:
    celeriac.set_default(None)
    with pytest.raises(celeriac.ConfigurationError, match="no default store"):
        celeriac.lock_once("x")(printed)("not printed")
    with pytest.raises(TypeError, match="store= is a store or a function that gives one, not int"):
        celeriac.lock_once("x", store=5)(printed)("not printed")
