"""Showing how far the demo is: a bar in a terminal, plain lines elsewhere. Both go to stderr."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from celeriac.demo.phase import Progress

LINE_EVERY = 0.25  # of the load's time


class Lines:
    """Progress as lines."""

    def __init__(self) -> None:
        self._next = LINE_EVERY

    def phase(self, title: str) -> None:
        """A new phase has begun."""
        print(title, file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        """A new step has begun."""
        self._next = LINE_EVERY
        print(f"  {text}", file=sys.stderr, flush=True)

    def load(self, share: float, requests_per_second: float) -> None:
        """Show the load at every quarter."""
        if share >= self._next:
            self._next += LINE_EVERY
            self.step_load(share, requests_per_second)

    @staticmethod
    def step_load(share: float, requests_per_second: float) -> None:
        """One line about the load."""
        print(f"  load {share:4.0%}, {requests_per_second:,.0f} requests/s", file=sys.stderr)


@contextmanager
def progress() -> Iterator[Progress]:
    """The way of showing that fits where stderr goes."""
    if sys.stderr.isatty() and importlib.util.find_spec("rich"):
        from .progress_bar import Bar

        with Bar() as bar:
            yield bar
    else:
        yield Lines()
