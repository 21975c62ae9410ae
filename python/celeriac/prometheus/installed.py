"""``install()``: the metrics of prometheus_client keep their values in a store.

What it hooks into, of prometheus_client: ``CollectorRegistry.register`` (a metric that is
registered is adopted: its values move into the store), ``MetricWrapperBase.labels`` (so are its
children),
``remove``, ``remove_by_labels``, ``clear``, ``inc`` and ``observe`` (straight into the core), and
``_samples`` (which shows the series of all processes). A metric that no registry has stays the
process's own, as do Info and Enum.

Names are the store's for metrics of the default registry. Those of other registries have a scope of
their own: the n-th metric of one name that this process registered in such is the same one in all.

The store is no condition for a call to succeed: where it can't be used (destroyed, closed at the
interpreter's end) values are kept in the process.
"""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import metrics as theirs
from prometheus_client import utils
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import REGISTRY, CollectorRegistry
from prometheus_client.samples import Sample

import celeriac
from celeriac import _core
from celeriac.errors import CeleriacError, ConfigurationError
from celeriac.metrics import DEFAULT_MAX_SERIES, MODES, TYPES

logger = logging.getLogger("celeriac.prometheus")
# Of type Any, because hooks are assigned to their methods.
Base: Any = theirs.MetricWrapperBase
Registry: Any = CollectorRegistry
bound_text: Any = utils.floatToGoString
Counter: Any = theirs.Counter
Histogram: Any = theirs.Histogram
Summary: Any = theirs.Summary
KINDS: dict[Any, int] = {theirs.Counter: 0, theirs.Gauge: 1, theirs.Histogram: 2, theirs.Summary: 3}

_installed: _Installed | None = None
_lock = threading.RLock()


class Value:
    """One value as prometheus_client's classes use it; its calls are the core's own."""

    __slots__ = ("_exemplar", "get", "inc", "set")
    _multiprocess = False

    def __init__(self, cell: _core.Metric, resets: bool) -> None:
        self._exemplar: Any = None
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

    def get_exemplar(self) -> Any:
        return self._exemplar


class Shared:
    """What an adopted metric, or a parent of series, has in the store."""

    def __init__(self, family: _core.MetricFamily, kind: int) -> None:
        self.family = family
        self.kind = kind
        self.fast: dict[tuple[object, ...], Any] = {}
        self.series: dict[tuple[str, ...], _core.Metric] = {}

    def bind(self, metric: Any, labels: tuple[str, ...]) -> None:
        """Has a metric's values lie in the store, with what they were until now added."""
        created = getattr(metric, "_created", None) or time.time()
        series = self.family.series(list(labels), created)
        self.series[labels] = series
        counts = self.kind != 1

        def moved(number: int, old: Any) -> Value:
            value = Value(series.cell(number), counts)
            before = old.get()
            if before and counts:
                value.inc(before)
            elif before:
                value.set(before)
            return value

        if self.kind == 0:
            metric._value = moved(0, metric._value)
            metric._celeriac_inc = series.cell(0).inc
        elif self.kind == 1:
            metric._value = moved(0, metric._value)
        elif self.kind == 2:
            metric._sum = moved(len(metric._upper_bounds), metric._sum)
            metric._buckets = [moved(i, b) for i, b in enumerate(metric._buckets)]
        else:
            metric._count, metric._sum = moved(0, metric._count), moved(1, metric._sum)
        if self.kind > 1:
            metric._celeriac_observe = series.cell(0).observe

    def forget(self, labels: Iterable[tuple[str, ...]]) -> None:
        self.fast = {}
        for values in labels:
            series = self.series.pop(values, None)
            if series is not None:
                series.retire()

    def child(self, metric: Any, labels: tuple[str, ...]) -> Any:
        return metric._metrics.get(labels) if metric._labelnames else metric

    def samples(self, metric: Any) -> Iterator[Sample]:
        """Of all processes; what a function gives is this one's."""
        *_, names, bounds, found = self.family.collect()
        shown = set()
        for labels, process, created, values in found:
            shown.add(labels)
            child = self.child(metric, labels)
            if child is not None and "_child_samples" in vars(child):
                continue
            named = dict(zip(names, labels, strict=True))
            if process:
                named["pid"] = process
            yield from self.of_series(child, named, bounds, created, values)
        here = metric._metrics.copy() if metric._labelnames else {(): metric}
        for labels, child in here.items():
            local = "_child_samples" in vars(child)
            if not local and (labels in shown or self.kind != 1):
                continue
            named = dict(zip(names, labels, strict=True))
            if not local and child._multiprocess_mode in ("all", "liveall"):
                named["pid"] = str(os.getpid())
            for suffix, own, *rest in child._child_samples():
                yield Sample(suffix, {**named, **own}, *rest)

    def of_series(
        self, child: Any, named: dict[str, str], bounds: list[float], created: float, values: Any
    ) -> Iterator[Sample]:
        if self.kind == 0:
            exemplar = None if child is None else child._value.get_exemplar()
            yield Sample("_total", named, values[0], None, exemplar)
        elif self.kind == 1:
            yield Sample("", named, values[0])
        elif self.kind == 2:
            total = 0.0
            for i, bound in enumerate(bounds):
                total += values[i]
                exemplar = None if child is None else child._buckets[i].get_exemplar()
                le = {**named, "le": bound_text(bound)}
                yield Sample("_bucket", le, total, None, exemplar)
            yield Sample("_count", named, total)
            if bounds[0] >= 0:
                yield Sample("_sum", named, values[len(bounds)])
        else:
            yield Sample("_count", named, values[0])
            yield Sample("_sum", named, values[1])
        if self.kind != 1 and theirs._use_created:
            yield Sample("_created", named, created)


class Others:
    """A collector of what the store has and the default registry of this process hasn't."""

    def __init__(self, core: _core.Metrics) -> None:
        self._core = core

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        known = {m._name for m in list(REGISTRY._collector_to_names) if isinstance(m, Base)}
        for name, scope, text, kind, _, names, bounds, found in self._core.collect():
            if scope or name in known or not found:
                continue
            metric = Metric(name, text, TYPES[kind])
            shared = Shared.__new__(Shared)
            shared.kind = kind
            for labels, process, created, values in found:
                named = dict(zip(names, labels, strict=True))
                if process:
                    named["pid"] = process
                for sample in shared.of_series(None, named, bounds, created, values):
                    if sample.name != "_created":
                        metric.add_sample(name + sample.name, sample.labels, sample.value)
            yield metric


class _Installed:
    """The hooks, and the store behind them."""

    def __init__(self, store: celeriac.Store) -> None:
        self.store = store
        self.core = store._core.metrics()
        self.scopes: Tally[str] = Tally()

    def adopt(self, metric: Any, registry: Any) -> None:
        kind = KINDS.get(type(metric))
        if kind is None:
            kind = next((k for c, k in KINDS.items() if isinstance(metric, c)), None)
        if kind is None or "_celeriac" in vars(metric):
            return
        scope = ""
        if registry is not REGISTRY:
            self.scopes[metric._name] += 1
            scope = str(self.scopes[metric._name])
        try:
            family = self.core.family(
                metric._name,
                scope,
                metric._documentation,
                kind,
                MODES.index(metric._multiprocess_mode if kind == 1 else "sum"),
                list(metric._labelnames),
                metric._upper_bounds if kind == 2 else [],
                DEFAULT_MAX_SERIES,
                time.time(),
            )
            shared = Shared(family, kind)
            if metric._labelnames:
                with metric._lock:
                    children = dict(metric._metrics)
                for labels, child in children.items():
                    shared.bind(child, labels)
            else:
                shared.bind(metric, ())
        except CeleriacError as error:
            logger.warning("metric %s stays this process's own: %s", metric._name, error)
            return
        metric._celeriac = shared

    def hook(self) -> None:
        register, labels, samples = Registry.register, Base.labels, Base._samples
        remove, by_labels, clear = Base.remove, Base.remove_by_labels, Base.clear
        adopt = self.adopt

        def registered(registry: Any, collector: Any) -> None:
            register(registry, collector)
            if isinstance(collector, Base):
                adopt(collector, registry)

        def child_of(metric: Any, *values: object, **named: object) -> Any:
            shared = metric.__dict__.get("_celeriac")
            if shared is None:
                return labels(metric, *values, **named)
            if values and named:
                return labels(metric, *values, **named)
            key = values or tuple(named.items())
            try:
                child = shared.fast.get(key)
            except TypeError:  # a label value that has no hash
                child = None
            if child is None:
                child = labels(metric, *values, **named)
                with _lock:
                    if child._labelvalues not in shared.series:
                        shared.bind(child, child._labelvalues)
                # Others that are equal (1, True, 1.0) may be other values.
                if all(isinstance(v, str) for v in (values or named.values())):
                    shared.fast[key] = child
            return child

        def all_samples(metric: Any) -> Any:
            shared = metric.__dict__.get("_celeriac")
            return samples(metric) if shared is None else shared.samples(metric)

        def sample_value(registry: Any, name: str, labels: Any = None) -> float | None:
            # What tests ask for: a gauge that each process has shows this one's without its pid.
            value: float | None = sampled(registry, name, labels)
            if value is None and "pid" not in (labels or {}):
                value = sampled(registry, name, {**(labels or {}), "pid": str(os.getpid())})
            return value

        def removed(metric: Any, *values: object) -> None:
            remove(metric, *values)
            shared = metric.__dict__.get("_celeriac")
            if shared is not None:
                label_values = tuple(str(v) for v in values)
                shared.forget([label_values])
                shared.family.remove(list(label_values))

        def removed_by(metric: Any, wanted: dict[str, str]) -> None:
            by_labels(metric, wanted)
            shared = metric.__dict__.get("_celeriac")
            if shared is None or not wanted:
                return
            at = {metric._labelnames.index(k): str(v) for k, v in wanted.items()}
            gone = [
                found[0]
                for found in shared.family.collect()[-1]
                if all(found[0][i] == value for i, value in at.items())
            ]
            shared.forget(gone)
            for values in gone:
                shared.family.remove(list(values))

        def cleared(metric: Any) -> None:
            clear(metric)
            shared = metric.__dict__.get("_celeriac")
            if shared is not None and metric._labelnames:
                shared.forget(list(shared.series))
                shared.family.clear()

        sampled = Registry.get_sample_value
        Registry.get_sample_value = sample_value
        counted, observed = Counter.inc, Histogram.observe
        summed = Summary.observe

        def inc(metric: Any, amount: float = 1, exemplar: Any = None) -> None:
            call = metric.__dict__.get("_celeriac_inc")
            if call is None or exemplar:
                counted(metric, amount, exemplar)
            else:
                call(amount)

        def observe(metric: Any, amount: float, exemplar: Any = None) -> None:
            call = metric.__dict__.get("_celeriac_observe")
            if call is None or exemplar:
                observed(metric, amount, exemplar)
            else:
                call(amount)

        def summarize(metric: Any, amount: float) -> None:
            call = metric.__dict__.get("_celeriac_observe")
            if call is None:
                summed(metric, amount)
            else:
                call(amount)

        Counter.inc, Histogram.observe = inc, observe
        Summary.observe = summarize
        Registry.register = registered
        Base.labels, Base._samples = child_of, all_samples
        Base.remove, Base.remove_by_labels, Base.clear = removed, removed_by, cleared

    def adopt_all(self) -> None:
        registries = [r for r in gc.get_objects() if isinstance(r, CollectorRegistry)]
        for registry in sorted(registries, key=lambda r: r is not REGISTRY):
            for collector in list(registry._collector_to_names):
                if isinstance(collector, Base):
                    self.adopt(collector, registry)
        REGISTRY.register(Others(self.core))


def install(store: str | celeriac.Store, **options: Any) -> None:
    """Has all metrics of prometheus_client live in the store, those declared before included.

    ``generate_latest()`` and everything that uses it then shows all processes that installed the
    same store. Call it as early as is convenient, once for each program: forked children go on with
    it. A second call with the same store does nothing.

    :param store: a URL, with the options of :func:`celeriac.connect`, or a store.

    Raises ConfigurationError when another store is installed, and what connect() raises.
    """
    global _installed
    with _lock:
        opened = store if isinstance(store, celeriac.Store) else celeriac.connect(store, **options)
        if _installed is not None:
            if opened.path != _installed.store.path:
                raise ConfigurationError(
                    f"metrics are in {_installed.store.url} already: one store for each process"
                )
            return
        _installed = _Installed(opened)
        _installed.hook()
        _installed.adopt_all()
