"""What an adopted metric of prometheus_client has in the store: its values, and its samples."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import metrics as theirs
from prometheus_client import utils
from prometheus_client.samples import Exemplar, Sample

from celeriac import _core
from celeriac.metric_facts import ENUM, EXEMPLAR, INFO, Fact, Facts, shown
from celeriac.prometheus.scrape import Scrape

bound_text: Any = utils.floatToGoString
COUNTER, GAUGE, HISTOGRAM, SUMMARY = range(4)


class Value:
    """One value as prometheus_client's classes use it; its calls are the core's own."""

    __slots__ = ("_exemplar", "_note", "get", "inc", "set")
    _multiprocess = False

    def __init__(
        self, cell: _core.Metric, resets: bool, note: Callable[[Any], None] | None = None
    ) -> None:
        self._exemplar: Any = None
        self._note = note
        self.inc = cell.inc
        self.get = cell.get
        self.set = self._reset(cell) if resets else cell.set

    @staticmethod
    def _reset(cell: _core.Metric) -> Any:
        def set(value: float, timestamp: float | None = None) -> None:
            cell.reset(time.time())
            if value:
                cell.inc(value)

        return set

    def set_exemplar(self, exemplar: Any) -> None:
        self._exemplar = exemplar
        if self._note is not None:
            self._note(exemplar)

    def get_exemplar(self) -> Any:
        return self._exemplar


class Shared:
    """A counter, gauge, histogram or summary, with its series."""

    def __init__(
        self, family: _core.MetricFamily, kind: int, scope: str, name: str, facts: Facts
    ) -> None:
        self.family = family
        self.kind = kind
        self.place = (name, scope)
        self.facts = facts
        self.fast: dict[tuple[object, ...], Any] = {}
        self.series: dict[tuple[str, ...], _core.Metric] = {}

    def bind(self, metric: Any, labels: tuple[str, ...]) -> bool:
        """Has a metric's values lie in the store, with what they were until now added.

        False when there is no place for the series: what it is told counts for nothing.
        """
        if labels in self.series:
            return True
        created = getattr(metric, "_created", None) or time.time()
        series = self.family.series(list(labels), created)
        if not series.dropped:
            self.series[labels] = series
        counts = self.kind != GAUGE

        def moved(number: int, old: Any, note: Any = None) -> Value:
            value = Value(series.cell(number), counts, note)
            before = old.get()
            if before and counts:
                value.inc(before)
            elif before:
                value.set(before)
            return value

        if self.kind == COUNTER:
            metric._value = moved(0, metric._value, self._note(labels, 0))
            metric._celeriac_inc = metric._value.inc
        elif self.kind == GAUGE:
            metric._value = moved(0, metric._value)
            if not metric._multiprocess_mode.endswith("mostrecent"):
                metric._celeriac_inc = metric._value.inc
            metric._celeriac_set = metric._value.set
        elif self.kind == HISTOGRAM:
            metric._sum = moved(len(metric._upper_bounds), metric._sum)
            metric._buckets = [
                moved(i, b, self._note(labels, i)) for i, b in enumerate(metric._buckets)
            ]
        else:
            metric._count, metric._sum = moved(0, metric._count), moved(1, metric._sum)
        if self.kind in (HISTOGRAM, SUMMARY):
            metric._celeriac_observe = series.cell(0).observe
        return not series.dropped

    def _note(self, labels: tuple[str, ...], cell: int) -> Callable[[Any], None]:
        name, scope = self.place

        def note(e: Any) -> None:
            said = (dict(e.labels), e.value, e.timestamp)
            self.facts.say(EXEMPLAR, scope, name, labels, said, cell)

        return note

    def forget(self, labels: Iterable[tuple[str, ...]]) -> None:
        """Series that were removed: what this process still tells them counts for nothing."""
        self.fast = {}
        for values in labels:
            series = self.series.pop(values, None)
            if series is not None:
                series.retire()

    def remove(self, labels: tuple[str, ...]) -> None:
        """Forget one series, in all processes."""
        self.forget([labels])
        self.family.remove(list(labels))

    def clear(self) -> None:
        """Forget all of them."""
        self.forget(list(self.series))
        self.family.clear()

    def label_sets(self) -> list[tuple[str, ...]]:
        """Of all processes."""
        return [found[0] for found in self.family.collect()[-1]]

    def samples(self, metric: Any, scrape: Scrape) -> Iterator[Sample]:
        """Of all processes; what a function gives is this one's."""
        *_, names, bounds, found = scrape.families.get(self.place) or self.family.collect()
        exemplars = scrape.exemplars(self.place) if self.kind in (COUNTER, HISTOGRAM) else {}
        seen = set()
        for labels, process, created, values in found:
            seen.add(labels)
            child = metric._metrics.get(labels) if metric._labelnames else metric
            if child is not None and "_child_samples" in vars(child):
                continue
            named = dict(zip(names, labels, strict=True))
            if process:
                named["pid"] = process
            yield from samples_of(
                self.kind, named, bounds, created, values, exemplars.get(labels, {})
            )
        here = metric._metrics.copy() if metric._labelnames else {(): metric}
        for labels, child in here.items():
            local = "_child_samples" in vars(child)
            if not local and (labels in seen or self.kind != GAUGE):
                continue
            named = dict(zip(names, labels, strict=True))
            if not local and child._multiprocess_mode in ("all", "liveall"):
                named["pid"] = str(os.getpid())
            for suffix, own, *rest in child._child_samples():
                yield Sample(suffix, {**named, **own}, *rest)


def samples_of(
    kind: int,
    named: dict[str, str],
    bounds: list[float],
    created: float,
    values: Any,
    exemplars: dict[int, Exemplar],
) -> Iterator[Sample]:
    """The samples of one series, as prometheus_client's classes give them."""
    if kind == COUNTER:
        yield Sample("_total", named, values[0], None, exemplars.get(0))
    elif kind == GAUGE:
        yield Sample("", named, values[0])
    elif kind == HISTOGRAM:
        total = 0.0
        for i, bound in enumerate(bounds):
            total += values[i]
            le = {**named, "le": bound_text(bound)}
            yield Sample("_bucket", le, total, None, exemplars.get(i))
        yield Sample("_count", named, total)
        if bounds[0] >= 0:
            yield Sample("_sum", named, values[len(bounds)])
    else:
        yield Sample("_count", named, values[0])
        yield Sample("_sum", named, values[1])
    if kind != GAUGE and created and theirs._use_created:
        yield Sample("_created", named, created)


class Told:
    """An info or an enum: what its series say, in all processes."""

    def __init__(self, metric: Any, scope: str, facts: Facts) -> None:
        self.kind = INFO if isinstance(metric, theirs.Info) else ENUM
        self.place = (metric._name, scope)
        self.facts = facts
        self._first = (metric._documentation, tuple(metric._labelnames))

    def bind(self, metric: Any, labels: tuple[str, ...]) -> None:
        """Has what the series says be said to all, with what it said until now."""
        if "_celeriac_told" in vars(metric):
            return
        metric._lock = threading.RLock()

        def tell() -> None:
            if self.kind == INFO:
                self.say(labels, dict(metric._value))
            else:
                self.say(labels, metric._states[metric._value], tuple(metric._states))

        metric._celeriac_told = tell
        if metric._value:
            tell()

    def say(self, labels: tuple[str, ...], *what: Any) -> None:
        """An info's dictionary; or an enum's state, and all that it may have."""
        name, scope = self.place
        self.facts.say(self.kind, scope, name, labels, (*self._first, *what))

    def remove(self, labels: tuple[str, ...]) -> None:
        """Forget what one series says, in all processes."""
        name, scope = self.place
        self.facts.forget(self.kind, scope, name, labels)

    def clear(self) -> None:
        """Forget what all say."""
        for labels in self.label_sets():
            self.remove(labels)

    def label_sets(self) -> list[tuple[str, ...]]:
        """Of all processes."""
        return [f.labels for f in self.facts.all() if (f.kind, f.name, f.scope) == self._where]

    @property
    def _where(self) -> tuple[str, str, str]:
        return (self.kind, *self.place)

    def samples(self, metric: Any, scrape: Scrape) -> Iterator[Sample]:
        """Of all processes; a series of this one that says nothing yet has what it begins with."""
        seen = set()
        for fact in scrape.facts.get(self._where, ()):
            seen.add(fact.labels)
            yield from told_samples(fact)
        here = metric._metrics.copy() if metric._labelnames else {(): metric}
        for labels, child in here.items():
            if labels in seen:
                continue
            named = dict(zip(metric._labelnames, labels, strict=True))
            for suffix, own, *rest in child._child_samples():
                yield Sample(suffix, {**named, **own}, *rest)


def told_samples(fact: Fact) -> Iterator[Sample]:
    """The samples of an info or enum, from what was said."""
    suffix = "_info" if fact.kind == INFO else ""
    for labels, value in shown(fact):
        yield Sample(suffix, labels, value)
