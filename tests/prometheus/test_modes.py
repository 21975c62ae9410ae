"""prometheus_client's modes of gauges, over processes that live and that are dead."""

from __future__ import annotations

import pytest
from programs import run

pytest.importorskip("prometheus_client", reason="the extra celeriac[prometheus] isn't installed")

DECLARED = """
celeriac.prometheus.install(store)
g = p.Gauge("g", "G.", ["l"], multiprocess_mode=MODE)
def set_to(number):
    return lambda: g.labels("x").set(number)
"""


@pytest.mark.parametrize(
    ("mode", "with_the_living", "with_the_dead"),
    [
        ("sum", 17, 17),
        ("livesum", 15, 5),
        ("max", 10, 10),
        ("livemax", 10, 5),
        ("min", 2, 2),
        ("livemin", 5, 5),
        ("mostrecent", 10, 10),
        ("livemostrecent", 10, 5),
    ],
)
def test_one_value_of_all(mode: str, with_the_living: float, with_the_dead: float) -> None:
    run(
        f"MODE = {mode!r}\n{DECLARED}"
        f"child(set_to(2))\n"
        f"set_to(5)()\n"
        f"end = living(set_to(10))\n"
        f'assert value("g", l="x") == {with_the_living}\n'
        f"end()\n"
        f'assert value("g", l="x") == {with_the_dead}\n'
        f"line = b'g{{l=\"x\"}} {float(with_the_dead)}'\n"
        f"assert line in store.metrics.exposition().splitlines()\n"
    )


@pytest.mark.parametrize("mode", ["all", "liveall"])
def test_a_value_of_each_living_process(mode: str) -> None:
    run(
        f"MODE = {mode!r}\n{DECLARED}"
        "child(set_to(2))\n"
        "set_to(5)()\n"
        "end = living(set_to(10))\n"
        "def shown():\n"
        "    (metric,) = [m for m in p.REGISTRY.collect() if m.name == 'g']\n"
        "    return {s.labels['pid']: s.value for s in metric.samples}\n"
        "assert shown() == {str(os.getpid()): 5, str(end.pid): 10}\n"
        "assert value('g', l='x') == 5\n"  # this one's, as in a program of one process
        "end()\n"
        "assert shown() == {str(os.getpid()): 5}\n"
    )


def test_the_most_recent_can_only_be_set() -> None:
    run("""
        celeriac.prometheus.install(store)
        g = p.Gauge("g", "G.", multiprocess_mode="mostrecent")
        raises(RuntimeError, g.inc)
        raises(RuntimeError, g.dec)
        g.set(3)
        assert value("g") == 3
    """)


def test_a_function_s_value_is_the_process_s() -> None:
    run("""
        celeriac.prometheus.install(store)
        g = p.Gauge("g", "G.", multiprocess_mode="sum")
        g.set_function(lambda: 42)
        child(lambda: p.REGISTRY.get_sample_value("g"))
        assert value("g") == 42
    """)


def test_helpers_of_gauges() -> None:
    run("""
        celeriac.prometheus.install(store)
        g = p.Gauge("g", "G.", multiprocess_mode="livesum")
        with g.track_inprogress():
            assert value("g") == 1
        g.set_to_current_time()
        assert value("g") > 1e9
        with g.time():
            pass
        assert 0 <= value("g") < 10
    """)
