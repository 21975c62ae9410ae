"""`python -m celeriac.demo.load PORT CONNECTIONS SECONDS PLAN RESULT`: warm up, load, write RESULT.

Progress goes to stdout as lines: `warm`, `begin`, `load SECONDS ANSWERED`, `end`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ..plan import read_plan
from .driver import Driver
from .tally import Tally

WARM_UP_SECONDS = 30.0


def main(port: str, connections: str, seconds: str, plan: str, result: str) -> None:
    """Run the plan against the server on `port`."""
    warm_up, load = read_plan(Path(plan))
    driver = Driver(("127.0.0.1", int(port)), int(connections))
    print("warm", flush=True)
    warm = driver.run(warm_up, WARM_UP_SECONDS, lambda tally: None)
    print("begin", flush=True)
    tally = driver.run(load, float(seconds), show)
    print("end", flush=True)
    data = {"warm_up": warm.as_dict(), "load": tally.as_dict()}
    Path(result).write_text(json.dumps(data))


def show(tally: Tally) -> None:
    """Tell how far the load is."""
    print(f"load {time.perf_counter() - tally.began:.2f} {tally.answered}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
