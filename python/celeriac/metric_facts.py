"""What metrics have that is no number: infos, states of enums, exemplars, CPU time of the dead.

They lie in the table ``celeriac.metrics``, each in an entry of its own, so that the last one who
says something is right, in all processes, and a death leaves the old or the new. What can't be
stored (the table is full, the store is away) is left out: metrics are no reason to fail.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from celeriac.errors import CeleriacError

if TYPE_CHECKING:
    from celeriac.table import Table

__all__ = ["TABLE", "Fact", "Facts"]

TABLE = "celeriac.metrics"
INFO, ENUM, EXEMPLAR = "info", "enum", "exemplar"
_ESCAPED = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_TRIES = 3

logger = logging.getLogger("celeriac.metrics")


class Fact(NamedTuple):
    """One of them: the series that it belongs to, and what is said of it."""

    kind: str
    scope: str
    name: str
    labels: tuple[str, ...]
    cell: int
    value: Any


class Facts:
    """The facts of a store. Thread-safe, fork-safe; crash-safe: an entry each."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._opened: Table | None = None

    def _table(self) -> Table:
        if self._opened is None:
            self._opened = self._store.table(TABLE)
        return self._opened

    def say(
        self, kind: str, scope: str, name: str, labels: Iterable[str], value: Any, cell: int = 0
    ) -> None:
        """Say it, in place of what was said before."""
        key = _key(kind, scope, name, labels, cell)
        self._quietly(lambda: self._table().set(key, value, None))

    def forget(
        self, kind: str, scope: str, name: str, labels: Iterable[str], cell: int = 0
    ) -> None:
        """Say nothing any more."""
        key = _key(kind, scope, name, labels, cell)
        self._quietly(lambda: self._table().delete(key))

    def all(self) -> list[Fact]:
        """What is said; nothing when the store is away."""
        found: list[Fact] = []

        def read() -> None:
            if self._opened is None and TABLE not in self._store.tables():
                return  # nobody ever said anything: no place is taken for it
            for key, value in self._table().items():
                if not key.startswith("["):
                    continue
                kind, scope, name, cell, *labels = json.loads(key)
                found.append(Fact(kind, scope, name, tuple(labels), cell, value))

        self._quietly(read)
        return sorted(found, key=lambda fact: fact[:5])

    def change(self, key: str, how: Callable[[Any], Any]) -> Any:
        """Replaces the entry by what becomes of it, unless others are in the way; what became."""
        after = None

        def run() -> None:
            nonlocal after
            for _ in range(_TRIES):
                before, version = self._table().get_versioned(key)
                after = how(before)
                if self._table().compare_and_set(key, version, after, None):
                    return

        self._quietly(run)
        return how(None) if after is None else after

    @staticmethod
    def _quietly(do: Callable[[], object]) -> None:
        try:
            do()
        except (CeleriacError, ValueError) as error:
            logger.debug("left out: %s", error)

    def text(self, openmetrics: bool) -> str:
        """Infos and enums as Prometheus reads them; those of the default registry."""
        lines: list[str] = []
        heads = set()
        for fact in self.all():
            if fact.scope or fact.kind not in (INFO, ENUM):
                continue
            info = fact.kind == INFO
            name = fact.name + ("_info" if info and not openmetrics else "")
            if name not in heads:
                heads.add(name)
                text = fact.value[0].translate(_ESCAPED if openmetrics else _ESCAPED | {34: '"'})
                kind = ("info" if info else "stateset") if openmetrics else "gauge"
                lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
            for labels, value in shown(fact):
                said = ",".join(f'{k}="{v.translate(_ESCAPED)}"' for k, v in labels.items())
                sample = fact.name + "_info" if info else fact.name
                lines.append(f"{sample}{{{said}}} {value}" if said else f"{sample} {value}")
        return "".join(line + "\n" for line in lines)


def shown(fact: Fact) -> Iterator[tuple[dict[str, str], float]]:
    """The samples of an info or an enum: all of its labels, and the value."""
    _, names, what, *states = fact.value
    own = dict(zip(names, fact.labels, strict=False))
    if fact.kind == INFO:
        yield {**own, **what}, 1.0
    for state in states[0] if states else ():
        yield {**own, fact.name: state}, 1.0 if state == what else 0.0


def _key(kind: str, scope: str, name: str, labels: Iterable[str], cell: int) -> str:
    return json.dumps([kind, scope, name, cell, *labels])
