"""Helpers of the crash tests; pytest's importlib mode leaves sys.path alone."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parent / "support"):
    sys.path.insert(0, str(folder))
