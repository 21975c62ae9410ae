"""Metrics that all processes of a store share: counters, gauges, histograms, and their exposition.

    requests = store.metrics.counter("http_requests_total", "Requests.", ["method"])
    requests.labels("GET").inc()
    store.metrics.exposition()

Each process adds to values of its own, which no lock guards, and whoever reads adds them up: so
``inc()``, ``set()`` and ``observe()`` may be called from threads, signal handlers, callbacks of the
garbage collector and forked children. What a dead process counted stays counted; its memory goes to
the next process. A metric of one name is one metric, whichever process declared it first.
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from celeriac import _core, own_metrics
from celeriac.errors import ConfigurationError
from celeriac.metric_facts import Facts

MODES = (
    "sum",
    "livesum",
    "min",
    "livemin",
    "max",
    "livemax",
    "mostrecent",
    "livemostrecent",
    "all",
    "liveall",
)
TYPES = ("counter", "gauge", "histogram", "summary")
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
DEFAULT_MAX_SERIES = 10_000

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*\Z")
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")
_Self = TypeVar("_Self", bound="_Family")
_Call = TypeVar("_Call", bound=Callable[..., Any])


def check_buckets(buckets: Iterable[float]) -> list[float]:
    """Bounds that rise, the last infinite. ConfigurationError, TypeError."""
    bounds = [float(b) for b in buckets]
    if any(math.isnan(b) for b in bounds) or any(b <= a for a, b in itertools.pairwise(bounds)):
        raise ConfigurationError(f"buckets={bounds}: the bounds must rise")
    if not bounds:
        raise ConfigurationError("buckets=[]: a histogram needs at least one")
    return bounds if bounds[-1] == math.inf else [*bounds, math.inf]


def _check_names(name: object, documentation: object, labelnames: object, own: str) -> list[str]:
    if not isinstance(name, str):
        raise TypeError(f"the name of a metric is a str, not {type(name).__name__}")
    if not _NAME.match(name):
        raise ConfigurationError(f"metric name {name!r}: letters, digits, _ and :, no digit first")
    if not isinstance(documentation, str):
        raise TypeError(f"documentation is a str, not {type(documentation).__name__}")
    if isinstance(labelnames, str) or not isinstance(labelnames, Iterable):
        raise TypeError(f"labelnames is a list of names, not {labelnames!r}")
    names = list(labelnames)
    for label in names:
        if not isinstance(label, str):
            raise TypeError(f"the name of a label is a str, not {type(label).__name__}")
        if not _LABEL.match(label) or label.startswith("__") or label == own:
            raise ConfigurationError(f"metric {name!r}: {label!r} can't be a label's name")
    if len(set(names)) != len(names):
        raise ConfigurationError(f"metric {name!r}: a label is named twice in {names}")
    return names


class _Timer:
    """Seconds that a block or a function took, given to a call at its end."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._began: list[float] = []

    def __enter__(self) -> _Timer:
        self._began.append(time.perf_counter())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._report(time.perf_counter() - self._began.pop())

    def __call__(self, function: _Call) -> _Call:
        report = self._report

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with _Timer(report):
                return function(*args, **kwargs)

        return timed  # type: ignore[return-value]


class _Family:
    """What all metrics have: label values, removal. One object is a family, or one series of it."""

    _type = ""
    _own_label = ""

    def __init__(self, family: _core.MetricFamily, name: str, labelnames: Sequence[str]) -> None:
        self.name = name
        """The name without ``_total``."""
        self.labelnames = tuple(labelnames)
        self._family = family
        self._children: dict[tuple[str, ...], Any] = {}
        self._named: dict[tuple[tuple[str, str], ...], Any] = {}
        self._series: _core.Metric | None = None
        if not labelnames:
            self._bind(family.series([], time.time()))

    def _bind(self, series: _core.Metric) -> None:
        """Gives the object the series' own calls: nothing of Python's is between."""
        self._series = series

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def _missing(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigurationError(
            f"metric {self.name!r} has the labels {', '.join(self.labelnames)}: call labels() first"
        )

    def labels(self: _Self, *values: str, **named: str) -> _Self:
        """The series of these label values, in the order of ``labelnames`` or by name.

        Keep it where a call counts: what it gives is faster than the next look. It is made on first
        use, by any process. Over the cap, or without memory, it is one whose values go nowhere, and
        ``celeriac_dropped_series_total`` rises.

        Raises ConfigurationError for other labels than the metric's, TypeError for a value that
        isn't a str.
        """
        if not named:
            child: _Self | None = self._children.get(values)
            return self._child(values, named) if child is None else child
        key = tuple(named.items())
        found: _Self | None = None if values else self._named.get(key)
        if found is None:
            found = self._child(values, named)
            if tuple(named[label] for label in self.labelnames) in self._children:
                self._named[key] = found
        return found

    def _child(self: _Self, values: tuple[str, ...], named: dict[str, str]) -> _Self:
        values = self._values(values, named)
        child: _Self | None = self._children.get(values)
        if child is None:
            child = type(self).__new__(type(self))
            child.name, child.labelnames, child._family = self.name, (), self._family
            child._children, child._named = {}, {}
            child._bind(self._family.series(list(values), time.time()))
            assert child._series is not None
            if not child._series.dropped:
                self._children[values] = child
        return child

    def _values(self, values: tuple[str, ...], named: dict[str, str]) -> tuple[str, ...]:
        if not self.labelnames:
            raise ConfigurationError(f"metric {self.name!r} has no labels, or they are given")
        if values and named:
            raise ConfigurationError("labels() takes values by position or by name, not both")
        if named:
            if set(named) != set(self.labelnames):
                raise ConfigurationError(
                    f"metric {self.name!r} has the labels {', '.join(self.labelnames)}, "
                    f"not {', '.join(named)}"
                )
            values = tuple(named[label] for label in self.labelnames)
        if len(values) != len(self.labelnames):
            raise ConfigurationError(
                f"metric {self.name!r} has {len(self.labelnames)} labels, not {len(values)}"
            )
        for value in values:
            if not isinstance(value, str):
                raise TypeError(f"a label's value is a str, not {type(value).__name__}: {value!r}")
        return values

    def remove(self, *values: str) -> None:
        """Forgets the series, in all processes. One that uses it afterwards begins it anew.

        Raises ConfigurationError, TypeError; LockTimeout when a stopped process is in the way.
        """
        values = self._values(values, {})
        child = self._children.pop(values, None)
        self._named = {}
        if child is not None:
            child._series.retire()
        self._family.remove(list(values))

    def clear(self) -> None:
        """Forgets all series, as remove() does."""
        if not self.labelnames:
            raise ConfigurationError(f"metric {self.name!r} has no labels: nothing to remove")
        children, self._children = self._children, {}
        self._named = {}
        for child in children.values():
            child._series.retire()
        self._family.clear()


class Counter(_Family):
    """A number that rises. Thread-safe, fork-safe, safe in signal handlers, crash-safe."""

    _type = "counter"
    inc: Callable[..., None]
    """``inc(amount=1)``; ValueError below zero."""

    def __init__(self, family: _core.MetricFamily, name: str, labelnames: Sequence[str]) -> None:
        self.inc = self._missing
        super().__init__(family, name, labelnames)

    def _bind(self, series: _core.Metric) -> None:
        super()._bind(series)
        self.inc = series.inc


class Gauge(_Family):
    """A number that may fall. Thread-safe, fork-safe, safe in signal handlers, crash-safe."""

    _type = "gauge"
    inc: Callable[..., None]
    """``inc(amount=1)``, of this process's value; RuntimeError for the most recent."""
    dec: Callable[..., None]
    set: Callable[..., None]
    """``set(value)``, of this process's value."""

    def __init__(
        self, family: _core.MetricFamily, name: str, labelnames: Sequence[str], mode: str
    ) -> None:
        self._mode = mode
        self.inc = self.dec = self.set = self._missing
        super().__init__(family, name, labelnames)

    def _child(self, values: tuple[str, ...], named: dict[str, str]) -> Gauge:
        child = super()._child(values, named)
        child._mode = self._mode
        if "mostrecent" in self._mode:
            child.inc = child.dec = child._only_set
        return child

    def _bind(self, series: _core.Metric) -> None:
        super()._bind(series)
        self.set = series.set
        self.inc, self.dec = series.inc, series.dec
        if "mostrecent" in getattr(self, "_mode", ""):
            self.inc = self.dec = self._only_set

    def _only_set(self, amount: float = 1) -> None:
        raise RuntimeError(f"gauge {self.name!r} is the most recent one: set() it")

    def set_to_current_time(self) -> None:
        """Sets it to the seconds of the wall clock."""
        self.set(time.time())

    def time(self) -> _Timer:
        """A context manager and decorator that sets it to the seconds that the code took."""
        return _Timer(self.set)


class Histogram(_Family):
    """How many observations are up to which bound. Thread-safe, fork-safe, safe in signal handlers.

    Crash-safe: a death in observe() leaves an observation counted, or not; the last one of a dead
    process may be missing in the sum.
    """

    _type = "histogram"
    _own_label = "le"
    observe: Callable[..., None]
    """``observe(amount)``"""

    def __init__(self, family: _core.MetricFamily, name: str, labelnames: Sequence[str]) -> None:
        self.observe = self._missing
        super().__init__(family, name, labelnames)

    def _bind(self, series: _core.Metric) -> None:
        super()._bind(series)
        self.observe = series.observe

    def time(self) -> _Timer:
        """A context manager and decorator that observes the seconds that the code took."""
        return _Timer(self.observe)


class Metrics:
    """The metrics of a store: ``store.metrics``. Thread-safe and fork-safe."""

    def __init__(self, store: Any) -> None:
        self._core: _core.Metrics = store._core.metrics()
        self._facts = Facts(store)
        self._store = store

    def _family(
        self,
        kind: str,
        name: str,
        documentation: str,
        labelnames: Sequence[str],
        max_series: int,
        mode: str = "sum",
        bounds: Sequence[float] = (),
    ) -> _core.MetricFamily:
        if isinstance(max_series, bool) or not isinstance(max_series, int):
            raise TypeError(f"max_series is an int, not {type(max_series).__name__}")
        if not 1 <= max_series <= 65536:
            raise ConfigurationError(f"max_series={max_series}: 1 to 65536")
        return self._core.family(
            name,
            "",
            documentation,
            TYPES.index(kind),
            MODES.index(mode),
            list(labelnames),
            list(bounds),
            max_series,
            time.time(),
        )

    def counter(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        *,
        max_series: int = DEFAULT_MAX_SERIES,
    ) -> Counter:
        """A counter; ``_total`` is added to its name where it isn't there.

        :param max_series: so many sets of label values it may have; it is the metric's, for all
            processes, and whoever names one last has set it.

        Raises ConfigurationError for a name that can't be one, and where there is a metric of the
        name with another type or other labels; TypeError; NotEnoughMemory.
        """
        names = _check_names(name, documentation, labelnames, "")
        name = name.removesuffix("_total")
        return Counter(self._family("counter", name, documentation, names, max_series), name, names)

    def gauge(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        *,
        mode: str = "sum",
        max_series: int = DEFAULT_MAX_SERIES,
    ) -> Gauge:
        """A gauge. Each process has a value of its own; ``mode`` says what they are together.

        :param mode: ``sum``, ``min``, ``max`` or ``mostrecent`` of all processes that ever set one;
            ``livesum``, ``livemin``, ``livemax``, ``livemostrecent`` of those that live; ``all`` or
            ``liveall``: each living one's, with the label ``pid``.
        """
        if mode not in MODES:
            raise ConfigurationError(f"mode={mode!r}: one of {', '.join(MODES)}")
        own = "pid" if mode.endswith("all") else ""
        names = _check_names(name, documentation, labelnames, own)
        family = self._family("gauge", name, documentation, names, max_series, mode)
        return Gauge(family, name, names, mode)

    def histogram(
        self,
        name: str,
        documentation: str,
        labelnames: Iterable[str] = (),
        *,
        buckets: Iterable[float] = DEFAULT_BUCKETS,
        max_series: int = DEFAULT_MAX_SERIES,
    ) -> Histogram:
        """A histogram.

        :param buckets: bounds that rise, in the unit of what is observed; up to 511 with infinity,
            which is added.
        """
        names = _check_names(name, documentation, labelnames, "le")
        bounds = check_buckets(buckets)
        family = self._family("histogram", name, documentation, names, max_series, bounds=bounds)
        return Histogram(family, name, names)

    def exposition(self, openmetrics: bool = False, *, own: bool = False) -> bytes:
        """All of it as Prometheus reads it: text format 0.0.4, or OpenMetrics 1.0.

        :param own: with the store's own statistics (:mod:`celeriac.own_metrics`), of memory,
            caches, queues, limits and locks.

        Metrics that ``celeriac.prometheus.install()`` put into the store are in it too. Raises
        LockTimeout when a stopped process is in the way.
        """
        text = self._core.exposition(bool(openmetrics))
        more = self._facts.text(bool(openmetrics))
        if own:
            more += own_metrics.text(self._store, bool(openmetrics))
        end = b"# EOF\n" if openmetrics else b""
        return text.removesuffix(end) + more.encode() + end if more else text

    def counts(self) -> dict[str, int]:
        """Families, series, processes with values, dropped series and lost values."""
        return self._core.counts()
