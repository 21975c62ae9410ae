"""The plan of requests and the traces that it is made from."""

from __future__ import annotations

import itertools
import lzma
import struct
from collections import Counter
from pathlib import Path

import pytest

from celeriac.demo import plan, trace
from celeriac.demo.options import CUSTOMERS, PRODUCTS, DemoOptions
from celeriac.errors import ConfigurationError


def write_trace(path: Path, keys: list[int]) -> Path:
    data = struct.pack(f">{len(keys)}i", *keys)
    path.write_bytes(lzma.compress(data) if path.suffix == ".xz" else data)
    return path


@pytest.mark.parametrize("name", ["keys.trace", "keys.trace.xz"])
def test_trace_is_read_big_endian(tmp_path: Path, name: str) -> None:
    keys = [1, 256, -1, 2**31 - 1]
    assert list(trace.read_keys(write_trace(tmp_path / name, keys))) == keys


def test_replay_keeps_order_and_popularity(tmp_path: Path) -> None:
    keys = [900, 5, 900, 77, 900, 5]
    views = trace.replayed(write_trace(tmp_path / "t", keys), products=10, seed=3)
    first = list(itertools.islice(views, 6))
    a, b, c = first[0], first[1], first[3]
    assert first == [a, b, a, c, a, b]
    assert len({a, b, c}) == 3
    assert all(1 <= product <= 10 for product in first)
    assert list(itertools.islice(views, 6)) == first, "a short trace starts again"


def test_long_tail_is_spread_over_all_products(tmp_path: Path) -> None:
    keys = [0] * 50 + list(range(1, 101))  # one popular key and a tail of 100
    views = trace.replayed(write_trace(tmp_path / "t", keys), products=10, seed=1)
    counts = sorted(Counter(itertools.islice(views, len(keys))).values())
    assert counts == [10] * 9 + [60]


@pytest.mark.parametrize("content", [b"", b"12345"])
def test_file_that_is_no_trace(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="not a trace"):
        trace.read_keys(path)


@pytest.mark.parametrize("name", ["missing", "broken.xz"])
def test_trace_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.xz").write_bytes(b"not xz at all")
    with pytest.raises(ConfigurationError, match="can't read the trace"):
        trace.read_keys(tmp_path / name)


def test_draw_is_zipf_and_repeatable() -> None:
    views = [list(itertools.islice(trace.drawn(100, seed), 20_000)) for seed in (1, 1, 2)]
    assert views[0] == views[1] != views[2]
    counts = sorted(Counter(views[0]).values(), reverse=True)
    assert 1.6 < counts[0] / counts[1] < 2.5, "the first is twice as popular as the second"


def test_plan_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    sums = [
        plan.write_plan(tmp_path / "plan", DemoOptions(seconds=1, seed=seed)) for seed in (1, 1, 2)
    ]
    assert sums[0] == sums[1] != sums[2]


def test_plan_has_its_mix(tmp_path: Path) -> None:
    path = tmp_path / "plan"
    plan.write_plan(path, DemoOptions(seconds=5))
    warm_up, load = plan.read_plan(path)
    counts = Counter(kind for kind, _, _ in load)
    for kind, share in plan.MIX.items():
        assert counts[kind] / len(load) == pytest.approx(share, rel=0.2), kind
    events = [argument for kind, argument, _ in warm_up + load if kind == plan.WEBHOOK]
    assert events == list(range(1, len(events) + 1)), "each event has an id of its own"
    assert {request[2] for request in warm_up[:CUSTOMERS]} == set(range(1, CUSTOMERS + 1))
    assert all(1 <= argument <= PRODUCTS for kind, argument, _ in load if kind == plan.PRODUCT)
    assert all(customer for kind, _, customer in load if kind == plan.PRICE)
