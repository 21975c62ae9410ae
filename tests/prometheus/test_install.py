"""celeriac.prometheus.install(): prometheus_client's metrics of all processes in one exposition.

Each test runs a program of its own: what is installed stays so for the life of a process.
"""

from __future__ import annotations

import secrets
import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("prometheus_client", reason="the extra celeriac[prometheus] isn't installed")

BEFORE = """
import os
import prometheus_client as p
import celeriac, celeriac.prometheus
store = celeriac.connect(URL)
def child(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
def value(name, **labels):
    return p.REGISTRY.get_sample_value(name, labels)
"""


def run(program: str) -> None:
    url = f"shm://t-{secrets.token_hex(6)}"
    code = f"URL = {url!r}\n{BEFORE}try:\n{textwrap.indent(textwrap.dedent(program), '    ')}\n"
    code += "finally:\n    store.destroy(force=True)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


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
        store.destroy(force=True)
        c.inc()
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
    """)
