"""``install()``: the metrics of prometheus_client keep their values in a store.

What it hooks into, of prometheus_client: the construction of metrics and
``CollectorRegistry.register`` (a metric is adopted: its values move into the store),
``MetricWrapperBase.labels`` (so are its children), ``remove``, ``remove_by_labels``, ``clear``,
``inc``, ``observe``, ``info`` and ``state`` (straight into the store), ``_samples`` and ``collect``
(which show the series of all processes), and ``ProcessCollector.collect`` (which adds up).

Names are the store's for metrics of the default registry. Those of other registries, and of none,
have a scope of their own: the n-th metric of one name that this process declared so is the same one
in all. A program that makes such metrics as it goes, and drops them (for a push gateway), isn't
meant by that: once one was collected as garbage, later ones of its name are the process's own. So
are gauges of such registries whose mode is ``all``, prometheus_client's default: one process's
values are what is pushed, without a label ``pid``. ``liveall`` shows those of all.

The store is no condition for a call to succeed: where it can't be used (destroyed, closed at the
interpreter's end) what counters and gauges are told is kept in the process, and observations are
lost.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import threading
import time
import weakref
from collections import Counter as Tally
from collections.abc import Iterator
from typing import Any

from prometheus_client import metrics as theirs
from prometheus_client import values
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import REGISTRY, CollectorRegistry, RestrictedRegistry

import celeriac
from celeriac import _core
from celeriac.errors import CeleriacError, ConfigurationError, StoreNotFound
from celeriac.metric_facts import Facts
from celeriac.metrics import DEFAULT_MAX_SERIES, MODES
from celeriac.prometheus.others import Others
from celeriac.prometheus.processes import summed
from celeriac.prometheus.scrape import scraping, shared_by
from celeriac.prometheus.shared import COUNTER, GAUGE, HISTOGRAM, SUMMARY, Shared, Told

logger = logging.getLogger("celeriac.prometheus")
# Of type Any, because hooks are assigned to their methods.
Base: Any = theirs.MetricWrapperBase
Registry: Any = CollectorRegistry
Restricted: Any = RestrictedRegistry
Counter: Any = theirs.Counter
Gauge: Any = theirs.Gauge
Histogram: Any = theirs.Histogram
Summary: Any = theirs.Summary
Info: Any = theirs.Info
Enum: Any = theirs.Enum
Process: Any = ProcessCollector
KINDS: dict[Any, int] = {
    theirs.Counter: COUNTER,
    theirs.Gauge: GAUGE,
    theirs.Histogram: HISTOGRAM,
    theirs.Summary: SUMMARY,
}

_installed: _Installed | None = None
_lock = threading.RLock()
_excluded: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()


def exclude(registry: CollectorRegistry) -> None:
    """Leaves the metrics of a registry the process's own: those that are declared from now on."""
    _excluded.add(registry)


class _Installed:
    """The hooks, and the store behind them."""

    def __init__(self, store: celeriac.Store) -> None:
        self.store = store
        self.core: _core.Metrics = store._core.metrics()
        self.facts = Facts(store)
        self.scopes: Tally[str] = Tally()
        self.passing: set[str] = set()  # names of metrics that were garbage
        self.watched: set[weakref.ref[Any]] = set()
        self.parents: weakref.WeakSet[Any] = weakref.WeakSet()

    def adopt(self, metric: Any, registry: Any) -> None:
        """Has the metric live in the store, unless it does or can't."""
        if "_celeriac" in vars(metric) or (registry is not None and registry in _excluded):
            return
        told = isinstance(metric, (theirs.Info, theirs.Enum))
        kind = next((k for c, k in KINDS.items() if isinstance(metric, c)), None)
        if kind is None and not told:
            return
        name = metric._name
        scope: str | None = ""
        if registry is not REGISTRY:
            own = kind == GAUGE and metric._multiprocess_mode == "all"
            scope = None if own else self.scope(metric)
        if scope is None:
            return
        try:
            shared: Any
            if kind is None:
                shared = Told(metric, scope, self.facts)
            else:
                shared = Shared(self.family(metric, kind, scope), kind, scope, name, self.facts)
            if metric._labelnames:
                # Whoever comes back to it in a signal handler, or a callback of the garbage
                # collector, needn't wait for himself.
                metric._lock = threading.RLock()
                self.parents.add(metric)
                for labels, child in dict(metric._metrics).items():
                    shared.bind(child, labels)
            else:
                shared.bind(metric, ())
        except CeleriacError as error:
            logger.warning("metric %s stays this process's own: %s", name, error)
            return
        metric._celeriac = shared

    def scope(self, metric: Any) -> str | None:
        """Of a metric of another registry than the default one."""
        name = metric._name
        if name in self.passing:
            return None
        self.scopes[name] += 1

        def passed(ref: weakref.ref[Any]) -> None:
            self.passing.add(name)
            self.watched.discard(ref)

        self.watched.add(weakref.ref(metric, passed))
        return str(self.scopes[name])

    def family(self, metric: Any, kind: int, scope: str) -> _core.MetricFamily:
        """The metric's family in the store."""
        return self.core.family(
            metric._name,
            scope,
            metric._documentation,
            kind,
            MODES.index(metric._multiprocess_mode if kind == GAUGE else "sum"),
            list(metric._labelnames),
            metric._upper_bounds if kind == HISTOGRAM else [],
            DEFAULT_MAX_SERIES,
            time.time(),
        )

    def hook(self) -> None:
        """Put ours in the places of their methods."""
        self.hook_declarations()
        self.hook_removals()
        self.hook_changes()
        self.hook_scrapes()
        os.register_at_fork(after_in_child=self.renew_locks)

    def renew_locks(self) -> None:
        """In a forked child: whoever held one isn't here."""
        global _lock
        _lock = threading.RLock()
        REGISTRY._lock = threading.Lock()
        for parent in list(self.parents):
            parent._lock = threading.RLock()

    def hook_declarations(self) -> None:
        """Construction, register() and labels()."""
        init, register, labels = Base.__init__, Registry.register, Base.labels
        adopt = self.adopt

        def declared(metric: Any, *args: Any, **kwargs: Any) -> None:
            init(metric, *args, **kwargs)
            if not metric._labelvalues and kwargs.get("registry", REGISTRY) is None:
                adopt(metric, None)

        def registered(registry: Any, collector: Any) -> None:
            register(registry, collector)
            if isinstance(collector, Base):
                adopt(collector, registry)

        def child_of(metric: Any, *values: object, **named: object) -> Any:
            shared = metric.__dict__.get("_celeriac")
            if shared is None or (values and named):
                return labels(metric, *values, **named)
            if type(shared) is Told:
                child = labels(metric, *values, **named)
                with _lock:
                    shared.bind(child, child._labelvalues)
                return child
            key = values or tuple(named.items())
            try:
                child = shared.fast.get(key)
            except TypeError:  # a label value that has no hash
                child = None
            if child is None:
                child = labels(metric, *values, **named)
                try:
                    with _lock:
                        bound = shared.bind(child, child._labelvalues)
                except CeleriacError:  # the store is away: the child is the process's own
                    return child
                if not bound:
                    metric._metrics.pop(child._labelvalues, None)  # label sets without end
                    return child
                # Others that are equal (1, True, 1.0) may be other values.
                if all(type(v) is str for v in (values or named.values())):
                    shared.fast[key] = child
            return child

        Base.__init__ = declared
        Registry.register = registered
        Base.labels = child_of

    def hook_removals(self) -> None:
        """remove(), remove_by_labels() and clear()."""
        remove, clear = Base.remove, Base.clear
        by_labels: Any = getattr(Base, "remove_by_labels", None)  # 0.20 hasn't got it

        def removed(metric: Any, *values: object) -> None:
            with contextlib.suppress(KeyError):  # 0.20 says so of what only others have
                remove(metric, *values)
            shared = metric.__dict__.get("_celeriac")
            if shared is not None:
                with contextlib.suppress(CeleriacError):
                    shared.remove(tuple(str(v) for v in values))

        def removed_by(metric: Any, wanted: dict[str, str]) -> None:
            by_labels(metric, wanted)
            shared = metric.__dict__.get("_celeriac")
            if shared is None or not wanted:
                return
            at = {metric._labelnames.index(k): str(v) for k, v in wanted.items()}
            with contextlib.suppress(CeleriacError):
                for labels in shared.label_sets():
                    if all(labels[i] == value for i, value in at.items()):
                        shared.remove(labels)

        def cleared(metric: Any) -> None:
            clear(metric)
            shared = metric.__dict__.get("_celeriac")
            if shared is not None and metric._labelnames:
                with contextlib.suppress(CeleriacError):
                    shared.clear()

        Base.remove, Base.clear = removed, cleared
        if by_labels is not None:
            Base.remove_by_labels = removed_by

    def hook_changes(self) -> None:
        """inc(), dec(), set(), observe(), info() and state()."""
        counted, observed, summarized = Counter.inc, Histogram.observe, Summary.observe
        informed, stated = Info.info, Enum.state
        moved, lowered, put = Gauge.inc, Gauge.dec, Gauge.set

        def inc(metric: Any, amount: float = 1, exemplar: Any = None) -> None:
            call = metric.__dict__.get("_celeriac_inc")
            if call is None or exemplar:
                counted(metric, amount, exemplar)
            else:
                call(amount)

        def move(metric: Any, amount: float = 1) -> None:
            call = metric.__dict__.get("_celeriac_inc")
            if call is None:
                moved(metric, amount)
            else:
                call(amount)

        def lower(metric: Any, amount: float = 1) -> None:
            call = metric.__dict__.get("_celeriac_inc")
            if call is None:
                lowered(metric, amount)
            else:
                call(-amount)

        def set_to(metric: Any, value: float) -> None:
            call = metric.__dict__.get("_celeriac_set")
            if call is None:
                put(metric, value)
            else:
                call(float(value))

        def observe(metric: Any, amount: float, exemplar: Any = None) -> None:
            call = metric.__dict__.get("_celeriac_observe")
            if call is None or exemplar:
                observed(metric, amount, exemplar)
            else:
                call(amount)

        def summarize(metric: Any, amount: float) -> None:
            call = metric.__dict__.get("_celeriac_observe")
            if call is None:
                summarized(metric, amount)
            else:
                call(amount)

        def info(metric: Any, val: dict[str, str]) -> None:
            informed(metric, val)
            tell = metric.__dict__.get("_celeriac_told")
            if tell is not None:
                tell()

        def state(metric: Any, state: str) -> None:
            stated(metric, state)
            tell = metric.__dict__.get("_celeriac_told")
            if tell is not None:
                tell()

        Counter.inc, Histogram.observe, Summary.observe = inc, observe, summarize
        Gauge.inc, Gauge.dec, Gauge.set = move, lower, set_to
        Info.info, Enum.state = info, state

    def hook_scrapes(self) -> None:
        """What shows the values of all processes."""
        samples, sampled, of_process = Base._samples, Registry.get_sample_value, Process.collect
        core, facts, store = self.core, self.facts, self.store

        def all_samples(metric: Any) -> Any:
            shared = metric.__dict__.get("_celeriac")
            if shared is None:
                return samples(metric)
            try:
                return list(shared.samples(metric, scraping(core, facts)))
            except CeleriacError as error:
                logger.warning("metric %s is shown without other processes: %s", metric, error)
                return samples(metric)

        def sample_value(registry: Any, name: str, labels: Any = None) -> float | None:
            # What tests ask for: a gauge that each process has shows this one's without its pid.
            value: float | None = sampled(registry, name, labels)
            if value is None and "pid" not in (labels or {}):
                value = sampled(registry, name, {**(labels or {}), "pid": str(os.getpid())})
            return value

        def process(collector: Any) -> Any:
            own = collector._proc != "/proc" or str(collector._pid()) != "self"
            return of_process(collector) if own else summed(collector, of_process, store, facts)

        def sharing(collect: Any) -> Any:
            def collected(registry: Any) -> Iterator[Any]:
                return shared_by(iter(collect(registry)), core, facts)

            return collected

        Base._samples, Registry.get_sample_value, Process.collect = (
            all_samples,
            sample_value,
            process,
        )
        Registry.collect = sharing(Registry.collect)
        Restricted.collect = sharing(Restricted.collect)

    def adopt_all(self) -> None:
        """Adopts what was declared before."""
        registries = [r for r in gc.get_objects() if isinstance(r, CollectorRegistry)]
        for registry in sorted(registries, key=lambda r: r is not REGISTRY):
            for collector in list(registry._collector_to_names):
                if isinstance(collector, Base):
                    self.adopt(collector, registry)
        others = Others(self.core, self.facts, Base)
        REGISTRY.register(others)
        nameless = getattr(REGISTRY, "_collectors_without_names", None)  # of restricted registries
        if nameless is not None and others not in nameless:
            nameless.append(others)


def _check_same(
    installed: celeriac.Store, store: str | celeriac.Store, options: dict[str, Any]
) -> None:
    """Raises ConfigurationError when it is another one; makes none."""
    with contextlib.suppress(StoreNotFound):
        if not isinstance(store, celeriac.Store):
            store = celeriac.connect(store, **{**options, "create": False})
        if store.path == installed.path:
            return
    raise ConfigurationError(f"metrics are in {installed.url} already: one store for each process")


def install(store: str | celeriac.Store, **options: Any) -> None:
    """Has all metrics of prometheus_client live in the store, those declared before included.

    ``generate_latest()`` and everything that uses it then shows all processes that installed the
    same store. Call it as early as is convenient, once for each program, and before it forks: the
    children go on with it. A second call with the same store does nothing.

    :param store: a URL, with the options of :func:`celeriac.connect`, or a store.

    Raises ConfigurationError when another store is installed, and what connect() raises.
    """
    global _installed
    with _lock:
        if _installed is not None:
            _check_same(_installed.store, store, options)
            return
        opened = store if isinstance(store, celeriac.Store) else celeriac.connect(store, **options)
        if getattr(values.ValueClass, "_multiprocess", False):
            logger.warning("PROMETHEUS_MULTIPROC_DIR is set: its files aren't used any more")
            values.ValueClass = values.MutexValue
        _installed = _Installed(opened)
        _installed.hook()
        _installed.adopt_all()
