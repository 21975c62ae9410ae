"""Infos, enums and exemplars of all processes, and process_* added up."""

from __future__ import annotations

import pytest
from programs import run

pytest.importorskip("prometheus_client", reason="the extra celeriac[prometheus] isn't installed")


def test_an_info_is_what_the_last_one_said() -> None:
    run("""
        before = p.Info("before", "B.")
        before.info({"version": "1"})
        celeriac.prometheus.install(store)
        after = p.Info("after", "A.", ["l"])
        child(lambda: (before.info({"version": "2"}), after.labels("x").info({"k": 'q"'})))
        assert value("before_info", version="2") == 1
        assert value("before_info", version="1") is None
        assert value("after_info", l="x", k='q"') == 1
        assert b'after_info{l="x",k="q\\\\""} 1.0' in store.metrics.exposition().splitlines()
        assert "verlapping" in raises(ValueError, after.labels("x").info, {"l": "y"})
        after.remove("x")
        assert value("after_info", l="x", k='q"') is None
        child(lambda: after.labels("y").info({"k": "v"}))
        after.clear()
        assert value("after_info", l="y", k="v") is None
    """)


def test_an_enum_is_what_the_last_one_said() -> None:
    run("""
        celeriac.prometheus.install(store)
        e = p.Enum("e", "E.", states=["starting", "running"])
        assert value("e", e="starting") == 1
        child(lambda: e.state("running"))
        assert (value("e", e="starting"), value("e", e="running")) == (0, 1)
        raises(ValueError, e.state, "unheard of")
        child(lambda: p.Enum("elsewhere", "F.", ["l"], states="ab").labels("x").state("b"))
        assert value("elsewhere", l="x", elsewhere="b") == 1
        text = store.metrics.exposition(openmetrics=True).splitlines()
        assert b"# TYPE elsewhere stateset" in text
        assert b'elsewhere{l="x",elsewhere="b"} 1.0' in text
    """)


def test_exemplars_are_those_of_all_processes() -> None:
    run("""
        from prometheus_client.openmetrics.exposition import generate_latest
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", ["l"])
        h = p.Histogram("h", "H.", buckets=[1, 2])
        def work():
            c.labels("x").inc(2, exemplar={"trace": "of the child"})
            h.observe(1.5, exemplar={"trace": "1.5"})
            p.Counter("elsewhere", "E.").inc(exemplar={"trace": "e"})
        child(work)
        h.observe(0.5, {"trace": "0.5"})
        raises(ValueError, c.labels("x").inc, 1, {"k" * 200: "too long"})
        found = {}
        for family in text_string_to_metric_families(generate_latest(p.REGISTRY).decode()):
            for s in family.samples:
                if (e := s.exemplar) is not None:
                    found[s.name, s.labels.get("le")] = (e.labels["trace"], e.value)
        assert found == {
            ("c_total", None): ("of the child", 2),
            ("h_bucket", "1.0"): ("0.5", 0.5),
            ("h_bucket", "2.0"): ("1.5", 1.5),
            ("elsewhere_total", None): ("e", 1),
        }
    """)


def test_processes_are_added_up_and_the_dead_s_cpu_time_stays() -> None:
    run("""
        import resource, time
        celeriac.prometheus.install(store)
        def work():
            store.cache().set("k", 1)
            spent = time.process_time() + 0.2
            while time.process_time() < spent:
                pass
        alone = value("process_resident_memory_bytes")
        fds = value("process_open_fds")
        started = value("process_start_time_seconds")
        end = living(work)
        assert value("process_resident_memory_bytes") > alone * 1.2
        assert value("process_open_fds") >= fds + 3
        assert value("process_start_time_seconds") == started
        used = value("process_cpu_seconds_total")
        assert used >= 0.2
        end()
        assert value("process_cpu_seconds_total") >= used
        assert value("process_open_fds") <= fds + 2
    """)


def test_a_collector_of_one_process_shows_that_one() -> None:
    run("""
        celeriac.prometheus.install(store)
        store.cache().set("k", 1)
        registry = p.CollectorRegistry()
        p.ProcessCollector(namespace="n", pid=lambda: os.getpid(), registry=registry)
        end = living(lambda: store.cache().set("k", 2))
        one = registry.get_sample_value("n_process_max_fds")
        assert value("process_max_fds") == 2 * one
        end()
    """)
