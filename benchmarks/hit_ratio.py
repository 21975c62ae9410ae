"""Hit ratios of eviction policies on access traces, ours through the real cache.

    python -m benchmarks.hit_ratio [TRACE …] [--shares 1 5 20] [--first N]
                                   [--json FILE] [--plot DIR]

Every policy gets the same number of entries: a share, in per cent, of the trace's distinct keys. A
request is a `get`; when it misses, a `set` follows. FIFO, LRU, S3-FIFO and Belady's optimum (it
knows the future) are simulated here; `celeriac` is `store.cache(max_entries=N)` on a store of its
own, asked by `get` and `set` as any program would.

A trace is a file of big-endian 32-bit keys (`*.trace.xz`) or of lines `first count …`
(`*.lis.zst`, unpacked by the program zstd), as they are published with cache2k and with ARC.
Without arguments: all such files of `../shared/traces` beside the clone.
"""

from __future__ import annotations

import argparse
import array
import heapq
import json
import lzma
import os
import subprocess
import sys
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import celeriac

ROOT = Path(__file__).resolve().parents[1]
TRACES = ROOT.parent / "shared" / "traces"
SUFFIXES = (".trace.xz", ".lis.zst")
MEMORY = "256M"


def load(path: Path) -> Sequence[int]:
    """The keys of a trace, in order. Raises SystemExit when the file is of no known form."""
    if path.name.endswith(".trace.xz"):
        keys = array.array("i", lzma.decompress(path.read_bytes()))
        if sys.byteorder == "little":
            keys.byteswap()
        return keys
    if path.name.endswith(".lis.zst"):
        text = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout
        keys = array.array("i")
        for line in text.splitlines():
            first, count = line.split()[:2]
            keys.extend(range(int(first), int(first) + int(count)))
        return keys
    raise SystemExit(f"{path} is not a trace: its name ends neither with {' nor '.join(SUFFIXES)}")


def fifo(keys: Sequence[int], size: int) -> int:
    """Hits of a queue: the oldest entry goes."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in held:
            hits += 1
            continue
        if len(held) >= size:
            held.popitem(last=False)
        held[key] = None
    return hits


def lru(keys: Sequence[int], size: int) -> int:
    """Hits when the least recently used entry goes."""
    held: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in held:
            hits += 1
            held.move_to_end(key)
            continue
        if len(held) >= size:
            held.popitem(last=False)
        held[key] = None
    return hits


def s3fifo(keys: Sequence[int], size: int) -> int:
    """Hits of S3-FIFO as published (SOSP 2023): small queue one tenth, ghost nine tenths."""
    small_size = max(1, size // 10)
    ghost_size = max(1, size - small_size)
    frequency: dict[int, int] = {}
    small: deque[int] = deque()
    main: deque[int] = deque()
    ghost: OrderedDict[int, None] = OrderedDict()
    hits = 0
    for key in keys:
        if key in frequency:
            hits += 1
            if frequency[key] < 3:
                frequency[key] += 1
            continue
        while len(frequency) >= size:
            if len(small) >= small_size or not main:
                oldest = small.popleft()
                if frequency[oldest] > 1:
                    frequency[oldest] = 0
                    main.append(oldest)
                    continue
                ghost[oldest] = None
                if len(ghost) > ghost_size:
                    ghost.popitem(last=False)
            else:
                oldest = main.popleft()
                if frequency[oldest] > 0:
                    frequency[oldest] -= 1
                    main.append(oldest)
                    continue
            del frequency[oldest]
        if key in ghost:
            del ghost[key]
            main.append(key)
        else:
            small.append(key)
        frequency[key] = 0
    return hits


def belady(keys: Sequence[int], size: int) -> int:
    """The most hits that are possible: the entry that is asked for last goes."""
    never = len(keys)
    next_use = array.array("q", bytes(8 * len(keys)))
    seen: dict[int, int] = {}
    for at in range(len(keys) - 1, -1, -1):
        next_use[at] = seen.get(keys[at], never)
        seen[keys[at]] = at
    held: dict[int, int] = {}  # key to its next use
    farthest: list[tuple[int, int]] = []
    hits = 0
    for at, key in enumerate(keys):
        if key in held:
            hits += 1
        elif len(held) >= size:
            while True:
                use, oldest = heapq.heappop(farthest)
                if held.get(oldest) == -use:
                    del held[oldest]
                    break
        held[key] = next_use[at]
        heapq.heappush(farthest, (-next_use[at], key))
    return hits


def ours(keys: Sequence[int], size: int) -> int:
    """Hits of a real cache with `max_entries`."""
    store = celeriac.connect(f"shm://hit-ratio-{os.getpid()}-{uuid.uuid4().hex[:8]}", memory=MEMORY)
    try:
        cache = store.cache("trace", ttl=None, max_entries=size)
        get, put = cache.get, cache.set
        for key in keys:
            name = str(key)
            if get(name) is None:
                put(name, True)
        stats = cache.stats()
        if stats.hits + stats.misses != len(keys) or stats.entries > size:
            raise SystemExit(f"the cache broke its promises: {stats}")
        return stats.hits
    finally:
        store.destroy(force=True)


POLICIES: dict[str, Callable[[Sequence[int], int], int]] = {
    "FIFO": fifo,
    "LRU": lru,
    "S3-FIFO": s3fifo,
    "celeriac": ours,
    "Belady": belady,
}


def measure(name: str, keys: Sequence[int], shares: Sequence[float]) -> list[dict[str, object]]:
    """A row for each share: hit ratios in per cent by policy."""
    distinct = len(set(keys))
    rows: list[dict[str, object]] = []
    for share in shares:
        size = max(1, int(distinct * share / 100))
        row: dict[str, object] = {"trace": name, "share": share, "entries": size}
        for policy, run in POLICIES.items():
            begun = time.monotonic()
            row[policy] = round(100 * run(keys, size) / len(keys), 2)
            took = time.monotonic() - begun
            print(f"{name} {share:g} %: {policy} {row[policy]} ({took:.1f} s)", file=sys.stderr)
        rows.append(row)
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown, with the distance to LRU and the mean."""
    lines = ["| trace | cache | " + " | ".join(POLICIES) + " | celeriac − LRU |"]
    lines.append("| --- |" + " --: |" * (len(POLICIES) + 2))

    def cells(values: dict[str, float]) -> str:
        shown = " | ".join(f"{values[policy]:.2f}" for policy in POLICIES)
        return f"{shown} | {values['celeriac'] - values['LRU']:+.2f} |"

    ratios = [{policy: float(str(row[policy])) for policy in POLICIES} for row in rows]
    for row, values in zip(rows, ratios, strict=True):
        lines.append(f"| {row['trace']} | {row['share']} % | {cells(values)}")
    mean = {p: sum(values[p] for values in ratios) / len(ratios) for p in POLICIES}
    lines.append(f"| mean | | {cells(mean)}")
    return "\n".join(lines)


COLOURS = {
    "FIFO": "#a3917a",
    "LRU": "#7a8ca3",
    "S3-FIFO": "#8f7aa3",
    "celeriac": "#2f7d4f",
    "Belady": "#cccccc",
}


def plot(rows: list[dict[str, object]]) -> str:
    """The rows as an SVG: a group of bars for each trace and share."""
    bar, gap, height, left = 16, 22, 260, 40
    group = bar * len(POLICIES) + gap
    width = left + group * len(rows) + 20

    def text(x: float, y: float, what: str, anchor: str = "middle") -> str:
        return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(what)}</text>'

    parts = [text(left, 16, "Hit ratio in per cent, by share of the distinct keys held", "start")]
    for percent in range(0, 101, 20):
        y = 60 + height - height * percent / 100
        parts.append(f'<line x1="{left}" y1="{y}" x2="{width}" y2="{y}" stroke="#ddd"/>')
        parts.append(text(left - 6, y + 4, str(percent), "end"))
    for index, policy in enumerate(POLICIES):
        x = left + 110 * index
        parts.append(f'<rect x="{x}" y="28" width="12" height="12" fill="{COLOURS[policy]}"/>')
        parts.append(text(x + 18, 38, policy, "start"))
    for number, row in enumerate(rows):
        x = left + number * group + gap / 2
        for index, policy in enumerate(POLICIES):
            tall = height * float(str(row[policy])) / 100
            parts.append(
                f'<rect x="{x + index * bar:.0f}" y="{60 + height - tall:.1f}" width="{bar - 2}" '
                f'height="{tall:.1f}" fill="{COLOURS[policy]}"><title>{policy}: {row[policy]}'
                "</title></rect>"
            )
        middle = x + bar * len(POLICIES) / 2
        parts.append(text(middle, height + 76, str(row["trace"])))
        parts.append(text(middle, height + 92, f"{row['share']} %"))
    style = "text{font:12px system-ui,sans-serif;fill:#222}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height + 104}">'
        f"<style>{style}</style>{''.join(parts)}</svg>\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("traces", nargs="*", type=Path, metavar="TRACE")
    parser.add_argument("--shares", nargs="+", type=float, default=[1, 5, 20], metavar="PERCENT")
    parser.add_argument("--first", type=int, metavar="N", help="the first N requests of each only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write hit_ratio.svg there")
    given = parser.parse_args(arguments)
    traces = given.traces or sorted(p for p in TRACES.glob("*") if p.name.endswith(SUFFIXES))
    if not traces:
        parser.error(f"no traces: name files, or put them into {TRACES}")
    rows: list[dict[str, object]] = []
    for path in traces:
        name = path.name.partition(".")[0]
        rows += measure(name, load(path)[: given.first], given.shares)
    print(table(rows))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")
    if given.plot:
        given.plot.mkdir(parents=True, exist_ok=True)
        (given.plot / "hit_ratio.svg").write_text(plot(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
