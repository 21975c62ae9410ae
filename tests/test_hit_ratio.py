"""The simulated policies do what their names say, and the real cache keeps up with them."""

from __future__ import annotations

import json
import lzma
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def _path() -> None:
    sys.path.insert(0, str(ROOT))


def test_policies_by_hand() -> None:
    from benchmarks import hit_ratio

    keys = [1, 2, 1, 3, 1, 2]
    assert hit_ratio.fifo(keys, 2) == 1  # 1 goes when 3 comes
    assert hit_ratio.lru(keys, 2) == 2
    assert hit_ratio.belady(keys, 2) == 2
    assert hit_ratio.belady([1, 2, 3, 1, 2, 3], 2) == 2
    assert hit_ratio.lru([1, 2, 3] * 5, 2) == 0
    assert hit_ratio.belady(keys, 3) == hit_ratio.lru(keys, 3) == hit_ratio.s3fifo(keys, 3) == 3


def test_the_real_cache_on_a_load_with_scans() -> None:
    from benchmarks import hit_ratio

    chance = random.Random(7)
    keys: list[int] = []
    for number in range(300):
        keys += [min(int(chance.paretovariate(0.9)), 5000) for _ in range(100)]
        keys += range(10_000 + number * 40, 10_040 + number * 40)  # seen once, never again
    ours, lru = hit_ratio.ours(keys, 150), hit_ratio.lru(keys, 150)
    assert ours > lru + len(keys) * 0.015
    assert ours <= hit_ratio.belady(keys, 150)
    assert ours >= hit_ratio.s3fifo(keys, 150) - len(keys) * 0.005


def test_the_small_queue_adapts_to_a_load_of_recency() -> None:
    from benchmarks import hit_ratio

    chance = random.Random(7)
    keys = [min(int(chance.paretovariate(0.35)), 5000) + n // 3 for n in range(40_000)]
    ours, lru = hit_ratio.ours(keys, 500), hit_ratio.lru(keys, 500)
    fixed = hit_ratio.s3fifo(keys, 500)  # a small queue of one tenth
    assert fixed < lru - len(keys) * 0.06
    assert ours > fixed + len(keys) * 0.04
    assert ours > lru - len(keys) * 0.03


# What an adaptive S3-FIFO reached in a simulation, at 1, 5 and 20 % of the footprint.
REFERENCE = {
    "web07": (43.97, 54.50, 62.69),
    "OLTP": (47.22, 62.76, 72.93),
    "orm-busy": (76.46, 85.08, 92.81),
}


def test_what_is_recorded_is_what_we_aim_at() -> None:
    from benchmarks import hit_ratio

    results = ROOT / "benchmarks" / "results"
    rows = json.loads((results / "hit_ratio.json").read_text())
    assert {(row["trace"], row["share"]) for row in rows} == {
        (trace, share) for trace in REFERENCE for share in (1, 5, 20)
    }
    for row in rows:
        aim = REFERENCE[row["trace"]][(1, 5, 20).index(row["share"])]
        assert row["celeriac"] >= aim - 0.3, row
        assert row["celeriac"] >= row["LRU"] - 0.6, row
    ahead = [row["celeriac"] - row["LRU"] for row in rows]
    assert sum(ahead) / len(ahead) >= 1.5
    assert (results / "hit_ratio.svg").read_text() == hit_ratio.plot(rows)


def test_the_program(tmp_path: Path) -> None:
    keys = [random.Random(3).randrange(60) for _ in range(600)] + list(range(60))
    trace = tmp_path / "small.trace.xz"
    trace.write_bytes(lzma.compress(struct.pack(f">{len(keys)}i", *keys)))
    options = ["--shares", "10", "50", "--json", str(tmp_path / "rows.json")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.hit_ratio", str(trace), *options, "--plot", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["entries"] for row in rows] == [6, 30]
    assert all(row["LRU"] <= row["Belady"] >= row["celeriac"] for row in rows)
    assert "| mean |" in done.stdout
    assert (tmp_path / "hit_ratio.svg").read_text().startswith("<svg")
