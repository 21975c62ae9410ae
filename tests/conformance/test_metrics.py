"""store.metrics: what it counts, how it is shown, and what it refuses."""

from __future__ import annotations

import gc
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

import celeriac
from celeriac import metrics
from celeriac.errors import ConfigurationError


def lines(store: celeriac.Store) -> dict[str, float]:
    """Samples by name and labels."""
    found = {}
    for line in store.metrics.exposition().decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def in_child(work: Callable[[], Any]) -> int:
    """Runs it in a forked process, which is dead when this returns; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_counter_counts(store: celeriac.Store) -> None:
    c = store.metrics.counter("jobs_total", "Jobs.")
    c.inc()
    c.inc(2.5)
    c.inc(amount=1)
    assert lines(store)["jobs_total"] == 4.5


def test_series_have_label_values(store: celeriac.Store) -> None:
    c = store.metrics.counter("hits", "Hits.", ["method", "code"])
    c.labels("GET", "200").inc()
    c.labels(code="200", method="GET").inc()
    c.labels("PUT", "500").inc(3)
    assert c.labels("GET", "200") is c.labels(method="GET", code="200")
    found = lines(store)
    assert found['hits_total{method="GET",code="200"}'] == 2
    assert found['hits_total{method="PUT",code="500"}'] == 3


def test_a_gauge_is_set_and_moved(store: celeriac.Store) -> None:
    g = store.metrics.gauge("depth", "Depth.")
    g.set(10)
    g.inc(2)
    g.dec()
    assert lines(store)["depth"] == 11


def test_a_histogram_is_cumulative(store: celeriac.Store) -> None:
    h = store.metrics.histogram("size", "Size.", ["kind"], buckets=[1, 5, 2_000_000])
    for value in (0.5, 1, 3, 7, 9e9):
        h.labels("a").observe(value)
    found = lines(store)
    assert [
        found[f'size_bucket{{kind="a",le="{b}"}}'] for b in ("1.0", "5.0", "2e+06", "+Inf")
    ] == [
        2,
        3,
        4,
        5,
    ]
    assert found['size_count{kind="a"}'] == 5
    assert found['size_sum{kind="a"}'] == 9e9 + 11.5


def test_time_is_observed_and_set(store: celeriac.Store) -> None:
    h = store.metrics.histogram("took", "Took.")
    g = store.metrics.gauge("last", "Last.")

    @h.time()
    def work(n: int) -> int:
        return n if n == 0 else work(n - 1)

    with g.time():
        assert work(2) == 0
    found = lines(store)
    assert found["took_count"] == 3
    assert found["last"] > 0


def test_the_text_is_what_prometheus_reads(store: celeriac.Store) -> None:
    c = store.metrics.counter("a_total", 'back\\slash\nand "quotes"', ["l"])
    c.labels('x"y\\z\n').inc()
    text = store.metrics.exposition()
    assert (
        b'# HELP a_total back\\\\slash\\nand "quotes"\n'
        b"# TYPE a_total counter\n"
        b'a_total{l="x\\"y\\\\z\\n"} 1.0\n'
    ) in text
    open_text = store.metrics.exposition(openmetrics=True)
    assert b"# TYPE a counter\n" in open_text
    assert b'# HELP a back\\\\slash\\nand \\"quotes\\"\n' in open_text
    assert open_text.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.0, 0.1, 1e16, 1e15, 123456.789, 1e-4, 1e-5, 5e-324, 1.7e308, -2.5e-7]
)
def test_numbers_are_written_as_python_does(store: celeriac.Store, value: float) -> None:
    store.metrics.gauge("g", "G.").set(value)
    assert f"\ng {value!r}\n".encode() in store.metrics.exposition()


@pytest.mark.parametrize(
    ("value", "text"), [(math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN")]
)
def test_what_is_no_finite_number(store: celeriac.Store, value: float, text: str) -> None:
    store.metrics.gauge("g", "G.").set(value)
    assert f"\ng {text}\n".encode() in store.metrics.exposition()


# ------------------------------------------------------------------------------------- processes


def test_the_dead_stay_counted_and_their_place_is_used_again(store: celeriac.Store) -> None:
    c = store.metrics.counter("n", "N.", ["who"])
    h = store.metrics.histogram("h", "H.", buckets=[1, 2])
    for i in range(20):
        assert in_child(lambda i=i: (c.labels(str(i % 3)).inc(), h.observe(1.5))) == 0
    found = lines(store)
    assert sum(found[f'n_total{{who="{i}"}}'] for i in range(3)) == 20
    assert found['h_bucket{le="2.0"}'] == found["h_count"] == 20
    assert found["h_sum"] == 30
    assert store.metrics.counts()["processes"] == 0


def test_a_killed_process_stays_counted(store: celeriac.Store) -> None:
    c = store.metrics.counter("n", "N.")

    def work() -> None:
        c.inc(5)
        os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(5):
        assert in_child(work) == -signal.SIGKILL
    assert lines(store)["n_total"] == 25


# What 1 (dead), 3 (dead) and 2 (alive, the last to be set) are together.
TOGETHER = {
    "sum": 6,
    "livesum": 2,
    "min": 1,
    "livemin": 2,
    "max": 3,
    "livemax": 2,
    "mostrecent": 2,
    "livemostrecent": 2,
}


@pytest.mark.parametrize("mode", TOGETHER)
def test_modes_of_gauges(store: celeriac.Store, mode: str) -> None:
    g = store.metrics.gauge("g", "G.", mode=mode)
    for value in (1, 3):
        assert in_child(lambda value=value: g.set(value)) == 0
    g.set(2)
    assert lines(store)["g"] == TOGETHER[mode]


@pytest.mark.parametrize(("mode", "value"), [("mostrecent", 3), ("livemostrecent", 2)])
def test_the_most_recent_may_be_a_dead_one(store: celeriac.Store, mode: str, value: float) -> None:
    g = store.metrics.gauge("g", "G.", mode=mode)
    g.set(2)
    assert in_child(lambda: g.set(3)) == 0
    assert lines(store)["g"] == value
    with pytest.raises(RuntimeError, match="most recent"):
        g.inc()


@pytest.mark.parametrize("mode", ["all", "liveall"])
def test_all_shows_each_living_process(store: celeriac.Store, mode: str) -> None:
    g = store.metrics.gauge("g", "G.", ["l"], mode=mode)
    assert in_child(lambda: g.labels("x").set(3)) == 0
    g.labels("x").set(2)
    found = {name: value for name, value in lines(store).items() if name.startswith("g{")}
    assert found == {f'g{{l="x",pid="{os.getpid()}"}}': 2}


def test_a_series_of_another_process_is_shown(store: celeriac.Store) -> None:
    def work() -> None:
        store.metrics.counter("elsewhere", "E.", ["l"]).labels("x").inc()

    assert in_child(work) == 0
    assert lines(store)['elsewhere_total{l="x"}'] == 1


def test_signal_handlers_and_garbage_collection_count(store: celeriac.Store) -> None:
    c = store.metrics.counter("n", "N.")
    store.metrics.exposition()
    calls = 0

    def handle(*_: Any) -> None:
        nonlocal calls
        calls += 1
        c.inc()

    def collected(phase: str, _: Any) -> None:
        if phase == "stop":
            handle()

    before = signal.signal(signal.SIGALRM, handle)
    gc.callbacks.append(collected)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        own = 0
        while calls < 50:
            c.inc()
            own += 1
            if own % 1000 == 0:
                gc.collect()
                store.metrics.exposition()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        gc.callbacks.remove(collected)
    assert lines(store)["n_total"] == own + calls


# --------------------------------------------------------------------------------------- removal


def test_removed_series_are_gone_for_all_and_begin_anew(store: celeriac.Store) -> None:
    c = store.metrics.counter("n", "N.", ["l"])
    c.labels("x").inc(5)
    c.labels("y").inc(7)
    assert in_child(lambda: c.remove("x")) == 0
    assert 'n_total{l="x"}' not in lines(store)
    c.labels("x").inc()
    found = lines(store)
    assert (found['n_total{l="x"}'], found['n_total{l="y"}']) == (1, 7)
    held = c.labels("y")
    c.clear()
    held.inc()
    assert not any(name.startswith("n_total") for name in lines(store))


def test_too_many_series_are_dropped_and_counted(store: celeriac.Store) -> None:
    c = store.metrics.counter("n", "N.", ["l"], max_series=10)
    for i in range(25):
        c.labels(str(i)).inc()
    found = lines(store)
    assert sum(name.startswith("n_total") for name in found) == 10
    assert found["celeriac_dropped_series_total"] >= 15
    c.clear()
    c.labels("24").inc()
    assert lines(store)['n_total{l="24"}'] == 1


# ------------------------------------------------------------------------------------- bad input


def test_one_name_is_one_metric(store: celeriac.Store) -> None:
    m = store.metrics
    m.counter("n", "N.", ["a"])
    m.counter("n_total", "Another text.", ["a"])
    m.histogram("h", "H.", buckets=[1])
    m.gauge("g", "G.")
    for wrong, what in (
        (lambda: m.counter("n", "N.", ["b"]), "other labels"),
        (lambda: m.gauge("n", "N.", ["a"]), "another type"),
        (lambda: m.histogram("h", "H.", buckets=[2]), "other buckets"),
        (lambda: m.gauge("g", "G.", mode="max"), "another mode"),
    ):
        with pytest.raises(ConfigurationError, match=what):
            wrong()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"name": "1a"}, ConfigurationError),
        ({"name": "a b"}, ConfigurationError),
        ({"name": ""}, ConfigurationError),
        ({"name": b"a"}, TypeError),
        ({"documentation": None}, TypeError),
        ({"labelnames": "abc"}, TypeError),
        ({"labelnames": [1]}, TypeError),
        ({"labelnames": ["a", "a"]}, ConfigurationError),
        ({"labelnames": ["__a"]}, ConfigurationError),
        ({"labelnames": ["le"]}, ConfigurationError),
        ({"buckets": []}, ConfigurationError),
        ({"buckets": [2, 1]}, ConfigurationError),
        ({"buckets": [1, 1]}, ConfigurationError),
        ({"buckets": [math.nan]}, ConfigurationError),
        ({"buckets": range(600)}, ConfigurationError),
        ({"max_series": 0}, ConfigurationError),
        ({"max_series": "1"}, TypeError),
    ],
)
def test_wrong_declarations(
    store: celeriac.Store, arguments: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        store.metrics.histogram(**{"name": "h", "documentation": "H.", **arguments})


def test_wrong_uses(store: celeriac.Store) -> None:
    c = store.metrics.counter("n", "N.", ["a", "b"])
    with pytest.raises(ConfigurationError, match=r"labels\(\) first"):
        c.inc()
    for wrong in (lambda: c.labels("x"), lambda: c.labels(a="x"), lambda: c.labels("x", b="y")):
        with pytest.raises(ConfigurationError):
            wrong()
    with pytest.raises(TypeError, match="int"):
        c.labels("x", 5)  # type: ignore[arg-type]
    one = c.labels("x", "y")
    with pytest.raises(ConfigurationError, match="no labels"):
        one.labels("x")
    with pytest.raises(ValueError, match="non-negative"):
        one.inc(-1)
    with pytest.raises(ValueError, match="non-negative"):
        one.inc(math.nan)
    with pytest.raises(TypeError):
        one.inc("1")
    with pytest.raises(TypeError):
        one.inc(1, 2)
    with pytest.raises(ConfigurationError, match="mode"):
        store.metrics.gauge("g", "G.", mode="average")
    for mode in ("all", "liveall"):  # they have that label already
        with pytest.raises(ConfigurationError, match="'pid' can't be"):
            store.metrics.gauge("g", "G.", ["pid"], mode=mode)
    store.metrics.gauge("g", "G.", ["pid"]).labels("1").set(1)


def test_a_closed_store_says_so(store: celeriac.Store) -> None:
    c = store.metrics.counter("n", "N.")
    c.inc()
    store.close()
    with pytest.raises(ConfigurationError, match="closed"):
        c.inc()


def test_modes_are_those_of_the_core() -> None:
    assert len(metrics.MODES) == 10
    assert metrics.TYPES == ("counter", "gauge", "histogram", "summary")
