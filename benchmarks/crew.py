"""Processes that stay for a whole benchmark and do what they are told, all at the same moment.

They are started afresh (spawned, not forked), as the workers of a server are that doesn't preload.
Each makes one object by calling `make(*arguments)` and then calls it with each job. A job's first
argument is the moment to start at, on the monotonic clock that all processes of a host share.
"""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

LEAD = 0.03
"""Seconds between telling a crew and its start: enough for all of them to hear it."""


def wait_for(start: float) -> None:
    """Sleep until shortly before the moment, then spin: all begin within microseconds."""
    left = start - time.monotonic() - 0.002
    if left > 0:
        time.sleep(left)
    while time.monotonic() < start:
        pass


def _serve(
    connection: Connection, make: Callable[..., Callable[..., Any]], arguments: Sequence[Any]
) -> None:
    try:
        worker = make(*arguments)
        connection.send((True, None))
        while True:
            job = connection.recv()
            if job is None:
                return
            connection.send((True, worker(*job)))
    except (EOFError, KeyboardInterrupt):
        return
    except Exception:
        connection.send((False, traceback.format_exc()))


class Crew:
    """`size` processes; a context manager that ends them."""

    def __init__(self, size: int, make: Callable[..., Callable[..., Any]], *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._members: list[tuple[Any, Connection]] = []
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        self.start = 0.0  # the moment at which the last jobs began

    def __enter__(self) -> Crew:
        self._answers(len(self._members), 60.0)  # all have made their object
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for _, connection in self._members:
            try:
                connection.send(None)
            except OSError:
                continue
        for process, connection in self._members:
            connection.close()
            process.join(5)
            if process.is_alive():
                process.terminate()
                process.join(5)

    def tell(self, *jobs: tuple[Any, ...], timeout: float = 120.0) -> list[Any]:
        """Give the first members one job each, with a common start before it; their answers."""
        self.start = time.monotonic() + LEAD
        for (_, connection), job in zip(self._members, jobs, strict=False):
            connection.send((self.start, *job))
        return self._answers(len(jobs), timeout)

    def _answers(self, count: int, timeout: float) -> list[Any]:
        answers = []
        for process, connection in self._members[:count]:
            if not connection.poll(timeout):
                raise TimeoutError(f"process {process.pid} didn't answer in {timeout} s")
            done, answer = connection.recv()
            if not done:
                raise RuntimeError(f"in process {process.pid}:\n{answer}")
            answers.append(answer)
        return answers
