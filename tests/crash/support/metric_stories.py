"""Stories of metrics: series that are made, counted, removed, and folded after a death.

What is told is what a sample rises by ("added") or becomes ("shown"). Of an observation the
bucket and the sum are two samples: one may be there without the other.
"""

from __future__ import annotations

from typing import Any

from victims import Allowed, Victim

import celeriac


def samples_of(store: celeriac.Store) -> dict[str, float]:
    """Each line of the exposition."""
    lines = store.metrics.exposition().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def judge_metrics(store: celeriac.Store, allowed: Allowed) -> None:
    """Each sample is what it may be, none was lost or refused, and metrics work."""
    if not allowed.samples:
        return
    found = samples_of(store)
    for sample, values in allowed.samples.items():
        assert found.get(sample, 0.0) in values, (sample, found.get(sample), values)
    counts = store.metrics.counts()
    assert (counts["processes"], counts["dropped"], counts["lost"]) == (0, 0, 0)
    for metric in ("c", "g"):
        before = found.get(f'{metric}{"_total" * (metric == "c")}{{l="x"}}', 0.0)
        counter(store, metric).labels("x").inc(2)
        found = samples_of(store)
        assert found[f'{metric}{"_total" * (metric == "c")}{{l="x"}}'] == before + 2


def counter(store: celeriac.Store, name: str) -> Any:
    """The counter `c`, or the gauge `g`."""
    return getattr(store.metrics, "counter" if name == "c" else "gauge")(name, "N.", ["l"])


def made(v: Victim, kind: str, name: str, **options: Any) -> Any:
    """A metric without labels."""
    return v.call({}, lambda: getattr(v.store.metrics, kind)(name, "N.", **options))


def add(v: Victim, metric: Any, label: str, sample: str) -> None:
    """One more."""
    child = v.call({}, lambda: metric.labels(label))
    v.call({"added": {f'{sample}{{l="{label}"}}': 1}}, child.inc)


def count(v: Victim) -> None:
    """Some of each kind."""
    v.connect()
    c, g = (v.call({}, lambda name=name: counter(v.store, name)) for name in "cg")
    for label in "xy":
        add(v, c, label, "c_total")
        add(v, g, label, "g")
        add(v, c, label, "c_total")
    h = made(v, "histogram", "h", buckets=[1, 2])
    for value, bounds in ((0.5, ("1.0", "2.0", "+Inf")), (1.5, ("2.0", "+Inf")), (8, ("+Inf",))):
        added = {f'h_bucket{{le="{bound}"}}': 1 for bound in bounds} | {"h_sum": value}
        v.call({"added": added}, lambda value=value: h.observe(value))
    for mode in ("max", "mostrecent"):
        gauge = made(v, "gauge", mode, mode=mode)
        for value in (v.number * 10.0, v.number * 10.0 + 1):
            v.call({"shown": {mode: value}}, lambda gauge=gauge, value=value: gauge.set(value))
    live = made(v, "gauge", "live", mode="liveall")
    v.call({}, lambda: live.set(3))


def remove(v: Victim) -> None:
    """Series that go, and come again."""
    v.connect()
    c = v.call({}, lambda: counter(v.store, "c"))
    for label in "xyz":
        add(v, c, label, "c_total")
    v.call({"shown": {'c_total{l="x"}': 0}}, lambda: c.remove("x"))
    add(v, c, "x", "c_total")
    v.call({"shown": {f'c_total{{l="{label}"}}': 0 for label in "xyz"}}, c.clear)
    add(v, c, "y", "c_total")
    g = made(v, "gauge", "alone")
    v.call({"shown": {"alone": 5}}, lambda: g.set(5))
    v.call({"shown": {"alone": 0}}, lambda: g._series.reset(0.0))


def many(v: Victim) -> None:
    """More series, and more values, than one chunk has."""
    v.connect()
    c = v.call({}, lambda: counter(v.store, "c"))
    h = v.call({}, lambda: v.store.metrics.histogram("h", "N.", ["l"], buckets=range(60)))
    v.call({}, lambda: [h.labels(str(i)).observe(70) for i in range(20)])
    for i in range(300):
        add(v, c, str(i), "c_total")


def fold(v: Victim) -> None:
    """Takes over what the dead have left, and counts on."""
    v.connect()
    c = v.call({}, lambda: counter(v.store, "c"))
    add(v, c, "x", "c_total")
    v.call({}, v.store.metrics.exposition)
    add(v, c, "y", "c_total")
