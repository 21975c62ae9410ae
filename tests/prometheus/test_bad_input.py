"""What programs get wrong with metrics, under install(): errors where prometheus_client has them,
and a process that goes on with values of its own where another one is in the way."""

from __future__ import annotations

import pytest
from programs import run

pytest.importorskip("prometheus_client", reason="the extra celeriac[prometheus] isn't installed")


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ('p.Counter("m", "M.", ["a"])', 'p.Counter("m", "M.", ["b"])', "other labels"),
        ('p.Counter("m", "M.", ["a"])', 'p.Gauge("m", "M.", ["a"])', "another type"),
        ('p.Histogram("m", "M.", ["a"])', 'p.Histogram("m", "M.", ["a"], buckets=[1])', "buckets"),
        (
            'p.Gauge("m", "M.", ["a"], multiprocess_mode="sum")',
            'p.Gauge("m", "M.", ["a"], multiprocess_mode="max")',
            "another mode",
        ),
    ],
)
def test_one_name_declared_otherwise_by_another_process(first: str, second: str, what: str) -> None:
    said = run(f"""
        import logging
        logging.basicConfig(level=logging.WARNING)
        celeriac.prometheus.install(store)
        child(lambda: {first})
        m = {second}
        m = m.labels("x")
        getattr(m, "inc", getattr(m, "observe", None))(3)
        samples = [s.value for f in p.REGISTRY.collect() if f.name == "m" for s in f.samples]
        assert 3 in samples, samples
    """)
    assert "metric m stays this process's own" in said
    assert what in said


def test_errors_are_those_of_prometheus_client() -> None:
    run("""
        def errors():
            c = p.Counter("c", "C.", ["l"], registry=p.CollectorRegistry())
            plain = p.Counter("plain", "C.", registry=p.CollectorRegistry())
            h = p.Histogram("h", "H.", registry=p.CollectorRegistry())
            return [
                (type(e), str(e).replace(str(c), "").replace(str(plain), ""))
                for e in map(caught, [
                    lambda: c.inc(),
                    lambda: c.labels(),
                    lambda: c.labels("a", "b"),
                    lambda: c.labels(m="a"),
                    lambda: c.labels("a", l="b"),
                    lambda: c.labels("a").labels("b"),
                    lambda: plain.labels("a"),
                    lambda: c.remove("a", "b"),
                    lambda: plain.remove("a"),
                    lambda: p.Histogram("x", "H.", buckets=[2, 1], registry=None),
                    lambda: p.Histogram("x", "H.", buckets=[], registry=None),
                    lambda: p.Gauge("x", "G.", multiprocess_mode="most", registry=None),
                    lambda: p.Counter("a b", "C.", ["__l"], registry=None),
                ])
            ]
        def caught(call):
            try:
                call()
            except Exception as error:
                return error
            raise AssertionError("an error was expected")
        before = errors()
        celeriac.prometheus.install(store)
        assert errors() == before
        plain = p.Counter("plain", "C.")
        assert "non-negative" in raises(ValueError, plain.inc, -1)
        raises(TypeError, plain.inc, "1")
        raises(TypeError, plain.inc, None)
        raises(TypeError, p.Histogram("h", "H.").observe, "1")
        assert value("plain_total") == 0
        c = p.Counter("c", "C.", ["l"])
        c.labels(None).inc()
        c.labels(7).inc()
        c.labels("7").inc()
        c.labels([1]).inc()  # no hash, but a text
        assert value("c_total", l="7") == 2
        assert value("c_total", l="[1]") == value("c_total", l="None") == 1
    """)


def test_label_sets_without_end_are_dropped_and_counted() -> None:
    run("""
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", ["user"])
        for n in range(10_050):
            c.labels(f"user {n}").inc()
        assert value("celeriac_dropped_series_total") == value("celeriac_lost_values_total") == 50
        assert len(c._metrics) == 10_000
        assert value("c_total", user="user 9999") == 1
        assert value("c_total", user="user 10000") is None
        other = p.Counter("other", "O.", ["user"])
        other.labels("x").inc()
        assert value("other_total", user="x") == 1
        c.remove("user 0")
        c.labels("new").inc()
        assert value("c_total", user="new") == 1
    """)


def test_a_full_store_drops_series_and_breaks_nothing() -> None:
    run("""
        store.destroy(force=True)
        store = celeriac.connect(URL, memory="2M")
        table = store.table("t")
        try:
            for n in range(10_000):
                table.set(f"{n}", "x" * 10_000)
        except celeriac.NotEnoughMemory:
            pass
        celeriac.prometheus.install(store)
        metrics = [p.Histogram(f"h{n}", "H.", ["l"]) for n in range(5)]
        for metric in metrics:
            for n in range(20):
                metric.labels(str(n)).observe(1)
        p.Info("i", "I.").info({"k": "v" * 100_000})
        counts = store.metrics.counts()
        assert counts["dropped"] + counts["lost"] > 0
        p.generate_latest()
    """)
