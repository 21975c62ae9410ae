"""Progress in a terminal, by rich."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class Bar:
    """One line for each phase; a bar that fills while the load runs. A context manager."""

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[title]:<28}"),
            BarColumn(30),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task("", title="preparing", total=1.0)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self._progress.update(self._task, description="done", completed=1.0)
        self._progress.stop()

    def phase(self, title: str) -> None:
        """Finish the line and begin the next."""
        self._progress.update(self._task, description="done", completed=1.0)
        self._progress.stop_task(self._task)
        self._task = self._progress.add_task("", title=title, total=1.0)

    def step(self, text: str) -> None:
        """A new step has begun."""
        self._progress.update(self._task, description=text)

    def load(self, share: float, requests_per_second: float) -> None:
        """Move the bar."""
        self._progress.update(
            self._task, completed=share, description=f"{requests_per_second:,.0f} requests/s"
        )
