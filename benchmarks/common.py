"""What the benchmarks share: options, rounds, statistics, what machine it was, the JSON.

A *result* is one case measured on several systems. The systems take turns inside of a round, and
the order moves on by one from round to round, so that a disturbance hits all of them alike. Each
gives one sample per round. A ratio is made per round, from samples taken within the same second or
two, and only then is the median taken: it says how many times better ours was, so below 1 we lose.

Shape of the JSON (`FORMAT` counts changes of it)::

    benchmark, format, started, quick, options, load_average {start, end}, calibration_ms summary,
    machine {...}, versions {...}, notes {...}, systems {id: description}, ours [id]
    results: [{group, case, unit, better: "lower" or "higher",
               systems: {id: summary}, ratios: {our id: {peer id: summary}}}]
    summary = {median, min, max, samples}
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from . import charts, tables

FORMAT = 1
ROOT = Path(__file__).resolve().parents[1]

PACKAGES = (
    "celeriac",
    "django",
    "celery",
    "kombu",
    "redis",
    "hiredis",
    "django-redis",
    "diskcache",
    "limits",
    "pylibmc",
)

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Options:
    """What the command line asked for."""

    rounds: int
    seconds: float
    json: Path | None
    plot: Path | None
    quick: bool
    only: str


def parse_options(
    description: str, *, rounds: int, seconds: float, arguments: Sequence[str] | None = None
) -> Options:
    """The options that all benchmarks have; `rounds` and `seconds` are this one's defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds; each system once in it")
    parser.add_argument("--seconds", type=float, default=seconds, help="length of one measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="write SVG charts there")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases that contain this")
    parser.add_argument("--quick", action="store_true", help="does it run at all? No figures")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.seconds <= 0:
        parser.error("--rounds and --seconds are above zero")
    if given.quick:
        given.rounds, given.seconds = min(given.rounds, 2), min(given.seconds, 0.02)
    return Options(given.rounds, given.seconds, given.json, given.plot, given.quick, given.only)


def turns(items: Sequence[_Item], number: int) -> Iterator[_Item]:
    """The items in the order of this round: each starts once, and none always follows another."""
    for index in range(len(items)):
        yield items[(index + number) % len(items)]


def summary(samples: Sequence[float]) -> dict[str, Any]:
    """Median, least, most, and the samples themselves, rounded to what they can mean."""
    return {
        "median": _rounded(statistics.median(samples)),
        "min": _rounded(min(samples)),
        "max": _rounded(max(samples)),
        "samples": [_rounded(sample) for sample in samples],
    }


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` (0 to 1) of the ordered values don't exceed."""
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered) + 0.5) - 1))]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


class Report:
    """Collects samples, prints them as they come, and makes the JSON of them."""

    def __init__(
        self,
        benchmark: str,
        options: Options,
        systems: dict[str, str],
        against: Mapping[str, Sequence[str]],
    ) -> None:
        """`against` names for each system of ours the peers that it is compared with."""
        self.benchmark = benchmark
        self.options = options
        self.systems = systems
        self.against = against
        self.notes: dict[str, Any] = {}
        self.versions: dict[str, str] = {}
        self._started = datetime.now(timezone.utc)
        self._load = os.getloadavg()
        self._calibration: list[float] = []
        self._samples: dict[tuple[str, str], dict[str, list[float]]] = {}
        self._units: dict[tuple[str, str], tuple[str, str]] = {}

    def wanted(self, group: str, case: str) -> bool:
        """Whether `--only` lets this case through."""
        return self.options.only in f"{group}: {case}"

    def add(
        self, group: str, case: str, system: str, value: float, unit: str, better: str = "lower"
    ) -> None:
        """One sample: call it once per round for each system of a case."""
        self._units[group, case] = (unit, better)
        self._samples.setdefault((group, case), {}).setdefault(system, []).append(value)

    def round(self, number: int, what: str = "") -> None:
        """Start of a round: say so, and take the time of a fixed piece of work.

        Where that time moves between rounds, the machine was busy with something else.
        """
        self._calibration.append(_fixed_work())
        print(
            f"{self.benchmark}: round {number + 1} of {self.options.rounds} {what}".rstrip()
            + f" (calibration {self._calibration[-1]:.1f} ms)",
            file=sys.stderr,
            flush=True,
        )

    def document(self) -> dict[str, Any]:
        """Everything, as it goes into the JSON."""
        end = os.getloadavg()
        return {
            "benchmark": self.benchmark,
            "format": FORMAT,
            "started": self._started.isoformat(timespec="seconds"),
            "quick": self.options.quick,
            "options": {"rounds": self.options.rounds, "seconds": self.options.seconds},
            "load_average": {"start": round(self._load[0], 2), "end": round(end[0], 2)},
            "calibration_ms": summary(self._calibration or [_fixed_work()]),
            "machine": machine(),
            "versions": {**versions(), **self.versions},
            "notes": self.notes,
            "systems": self.systems,
            "ours": list(self.against),
            "results": [self._result(*key) for key in self._samples],
        }

    def _result(self, group: str, case: str) -> dict[str, Any]:
        unit, better = self._units[group, case]
        samples = self._samples[group, case]
        ratios: dict[str, dict[str, Any]] = {}
        for our, peers in self.against.items():
            if our not in samples:
                continue
            ratios[our] = {
                peer: summary(
                    [
                        theirs / mine if better == "lower" else mine / theirs
                        for mine, theirs in zip(samples[our], taken, strict=True)
                        if mine > 0 and theirs > 0
                    ]
                )
                for peer, taken in samples.items()
                if peer in peers
            }
        return {
            "group": group,
            "case": case,
            "unit": unit,
            "better": better,
            "systems": {system: summary(taken) for system, taken in samples.items()},
            "ratios": ratios,
        }

    def finish(self) -> None:
        """Print the tables, and write what was asked for."""
        document = self.document()
        if not document["results"]:
            sys.exit(f"no case contains {self.options.only!r}")
        print(tables.render(document))
        if self.options.json is not None:
            self.options.json.parent.mkdir(parents=True, exist_ok=True)
            self.options.json.write_text(json.dumps(document, indent=1) + "\n")
        if self.options.plot is not None:
            self.options.plot.mkdir(parents=True, exist_ok=True)
            for name, drawing in charts.draw(document).items():
                (self.options.plot / f"{name}.svg").write_text(drawing)


def _fixed_work() -> float:
    """Milliseconds for a loop that is always the same."""
    start = time.perf_counter()
    total = 0
    for number in range(200_000):
        total += number & 7
    return (time.perf_counter() - start) * 1000


def machine() -> dict[str, Any]:
    """What the numbers were taken on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "CPU part") and not model:
            model = value.strip()
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "architecture": platform.machine(),
        "cpu": model or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9, 1),
        "kernel": platform.release(),
        "libc": "-".join(platform.libc_ver()),
    }


def versions() -> dict[str, str]:
    """Of Python, of the packages that take part, and of this clone."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    commit = _output("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    if commit:
        changed = _output("git", "-C", str(ROOT), "status", "--porcelain", "src", "python")
        found["commit"] = commit + ("+" if changed else "")
    return found


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def end_on_sigterm() -> None:
    """Let SIGTERM run the `finally` blocks, which stop servers and workers."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
