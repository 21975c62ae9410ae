"""Files whose bytes were changed while nobody looked: an error or a loss, never a crash (D11)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SEEDS = int(os.environ.get("CELERIAC_DAMAGE_SEEDS", "200"))
FIRST = int(os.environ.get("CELERIAC_DAMAGE_FIRST_SEED", "0"))


def test_random_damage(root: Path) -> None:
    program = Path(__file__).parent / "support" / "damage.py"
    done = subprocess.run(
        [sys.executable, str(program), str(root), str(SEEDS), str(FIRST)],
        capture_output=True,
        text=True,
        timeout=60 + SEEDS * 5,
        check=False,
    )
    assert done.stdout == "", done.stdout + done.stderr[-5000:]
    assert done.returncode == 0, done.stderr[-5000:]
