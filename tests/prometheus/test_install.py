"""celeriac.prometheus.install(): prometheus_client's metrics of all processes in one exposition.

Each test runs a program of its own: what is installed stays so for the life of a process.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import run

pytest.importorskip("prometheus_client", reason="the extra celeriac[prometheus] isn't installed")


def test_metrics_declared_before_and_after() -> None:
    run("""
        before = p.Counter("before", "B.", ["l"])
        before.labels("x").inc(3)
        celeriac.prometheus.install(URL)
        celeriac.prometheus.install(store)
        after = p.Histogram("after", "A.", buckets=[1, 2])
        child(lambda: (before.labels("x").inc(), before.labels("y").inc(7), after.observe(1.5)))
        after.observe(5)
        assert value("before_total", l="x") == 4
        assert value("before_total", l="y") == 7
        assert value("after_count") == 2
        assert value("after_bucket", le="2.0") == 1
        assert value("after_sum") == 6.5
    """)


def test_what_only_others_declared_is_shown_once() -> None:
    run("""
        celeriac.prometheus.install(store)
        child(lambda: p.Counter("elsewhere", "E.").inc())
        store.metrics.counter("native", "N.").inc(2)
        assert value("elsewhere_total") == 1
        assert value("native_total") == 2
        here = p.Counter("elsewhere", "E.")
        here.inc()
        assert p.generate_latest().count(b"\\nelsewhere_total ") == 1
        assert value("elsewhere_total") == 2
    """)


def test_removed_and_cleared_series_are_gone_in_all_processes() -> None:
    run("""
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", ["l"])
        c.labels("x").inc(5)
        c.labels("y").inc(5)
        child(lambda: c.remove("x"))
        assert value("c_total", l="x") is None
        c.labels("x").inc()
        assert value("c_total", l="x") == 1
        c.clear()
        assert value("c_total", l="y") is None
    """)


def test_a_destroyed_store_breaks_no_program() -> None:
    run("""
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.")
        c.inc()
        labelled = p.Counter("d", "D.", ["l"])
        labelled.labels("old").inc()
        i = p.Info("i", "I.", ["l"])
        i.labels("old").info({"a": "b"})
        store.destroy(force=True)
        c.inc()
        for l in ("old", "new"):
            labelled.labels(l).inc()
            labelled.labels(l=l).inc()
        i.labels("new").info({"a": "b"})
        p.Histogram("h", "H.", ["l"]).labels("new").observe(1)
        labelled.remove("old")
        labelled.remove_by_labels({"l": "new"})
        labelled.clear()
        i.remove("old")
        i.clear()
        p.generate_latest()
    """)


def test_one_store_for_each_process() -> None:
    run("""
        celeriac.prometheus.install(store)
        other = celeriac.connect(URL + "x")
        try:
            celeriac.prometheus.install(other)
        except celeriac.ConfigurationError as error:
            assert "already" in str(error)
        else:
            raise AssertionError("installed twice")
        finally:
            other.destroy(force=True)
        try:
            celeriac.prometheus.install(URL + "y")
        except celeriac.ConfigurationError as error:
            assert "already" in str(error)
        else:
            raise AssertionError("installed twice")
        try:
            celeriac.connect(URL + "y", create=False)
        except celeriac.StoreNotFound:
            pass
        else:
            raise AssertionError("a store that nobody uses is there")
        celeriac.prometheus.install(URL)
        celeriac.prometheus.install(store)
    """)


def test_a_scrape_without_the_store_shows_this_process() -> None:
    run("""
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", ["l"])
        c.labels("x").inc(3)
        store.destroy(force=True)
        c.labels("x").inc(4)
        assert value("c_total", l="x") == 4
    """)


def test_metrics_that_no_registry_has_live_in_the_store() -> None:
    run("""
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", registry=None)
        child(lambda: c.inc(2))
        c.inc()
        (metric,) = c.collect()
        assert metric.samples[0].value == 3
        assert value("c_total") is None
        p.REGISTRY.register(c)
        assert value("c_total") == 3
    """)


def test_each_registry_has_metrics_of_its_own() -> None:
    run("""
        first = p.CollectorRegistry()
        before = p.Counter("c", "C.", registry=first)
        before.inc(4)
        celeriac.prometheus.install(store)
        second = p.CollectorRegistry()
        after = p.Counter("c", "C.", registry=second)
        child(lambda: (before.inc(), after.inc(7)))
        assert first.get_sample_value("c_total") == 5
        assert second.get_sample_value("c_total") == 7
        assert value("c_total") is None
        assert b"c_total" not in store.metrics.exposition()
    """)


def test_registries_that_come_and_go_take_no_room() -> None:
    run("""
        celeriac.prometheus.install(store)
        def push(n):
            registry = p.CollectorRegistry()
            p.Counter("runs", "R.", registry=registry).inc(n)
            p.Gauge("last", "L.", registry=registry).set(n)
            return p.generate_latest(registry)
        for n in range(1, 20):
            text = push(n)
            assert b"\\nruns_total %d.0\\n" % n in text
            assert b"\\nlast %d.0\\n" % n in text
        assert store.metrics.counts()["families"] == 1
    """)


def test_an_excluded_registry_stays_the_process_s_own() -> None:
    run("""
        celeriac.prometheus.install(store)
        registry = p.CollectorRegistry()
        celeriac.prometheus.exclude(registry)
        c = p.Counter("c", "C.", registry=registry)
        child(lambda: c.inc())
        assert registry.get_sample_value("c_total") == 0
        assert store.metrics.counts()["families"] == 0
    """)


def test_the_files_of_the_multi_process_mode_are_not_used(tmp_path: Path) -> None:
    said = run(
        """
        import logging
        logging.basicConfig(level=logging.WARNING)
        before = p.Counter("before", "B.")
        before.inc(2)
        files = set(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
        celeriac.prometheus.install(store)
        p.Histogram("h", "H.").observe(1)
        before.inc()
        assert value("before_total") == 3
        assert set(os.listdir(os.environ["PROMETHEUS_MULTIPROC_DIR"])) == files
        """,
        PROMETHEUS_MULTIPROC_DIR=str(tmp_path),
    )
    assert "PROMETHEUS_MULTIPROC_DIR is set" in said


def test_what_is_asked_for_by_name_may_be_another_process_s() -> None:
    run("""
        celeriac.prometheus.install(store)
        child(lambda: p.Counter("elsewhere", "E.").inc(5))
        p.Counter("here", "H.").inc()
        only = p.REGISTRY.restricted_registry(["elsewhere_total"])
        assert p.generate_latest(only).splitlines()[-1] == b"elsewhere_total 5.0"
    """)
