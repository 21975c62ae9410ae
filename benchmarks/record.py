"""Run the benchmarks, keep what they say in `results/`, and make README.md's tables of it.

`python -m benchmarks.record [NAME ...] [options of the benchmarks]`; all of them when none is
named. The files of an earlier run of the same benchmark go: git has them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

from . import tables
from .common import ROOT

BENCHMARKS = ("cache", "queue", "durable", "celery", "limits", "locks", "metrics")


def record(name: str, options: list[str]) -> None:
    """One benchmark. What is there stays when it fails."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        file = made / f"{name}-{datetime.now(timezone.utc):%Y-%m-%d}.json"
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        subprocess.run([*command, "--json", file, "--plot", made], cwd=ROOT, check=True)
        for old in (*tables.RESULTS.glob(f"{name}-*.json"), *tables.RESULTS.glob(f"{name}-*.svg")):
            old.unlink()
        for new in made.iterdir():
            (tables.RESULTS / new.name).write_bytes(new.read_bytes())


def main() -> None:
    """Run those that are named."""
    arguments = sys.argv[1:]
    named = [argument for argument in arguments if argument in BENCHMARKS]
    options = [argument for argument in arguments if argument not in BENCHMARKS]
    if {"-h", "--help"} & set(options):
        sys.exit(__doc__)
    if any(option.startswith("--quick") for option in options):
        sys.exit("--quick gives no figures to keep")
    tables.RESULTS.mkdir(exist_ok=True)
    for name in named or BENCHMARKS:
        record(name, options)
    tables.README.write_text(tables.filled(tables.README.read_text()))


if __name__ == "__main__":
    main()
