"""Twenty seconds of the Celery soak (tests/crash/celery_soak.py) on each kind of store.

Here, because the folder tests/crash is also run where there is no Celery; what its judge sees is
tested there.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.worker, pytest.mark.slow]

SOAK = Path(__file__).parents[1] / "crash" / "celery_soak.py"


@pytest.mark.parametrize("kind", ["shm", "file"])
def test_twenty_seconds_of_kills(tmp_path: Path, kind: str) -> None:
    report = tmp_path / "soak.json"
    # In a process of its own, whose children are killed.
    soak = subprocess.Popen(
        [sys.executable, str(SOAK), "--seconds", "20", "--store", kind, "--json", str(report)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed, _ = soak.communicate(timeout=600)
    finally:
        soak.terminate()  # which has it end its processes; nothing when it is over
        soak.wait(60)
    assert soak.returncode == 0, printed
    result = json.loads(report.read_text())
    assert result["violations"] == []
    figures = result["figures"]
    assert figures["kills"] > 0
    assert figures["tasks_done"] >= figures["sent"] > 0
    assert figures["acked"] + figures["acks_unrecorded"] == figures["tasks_begun"]
