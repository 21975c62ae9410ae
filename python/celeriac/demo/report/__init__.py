"""What came out, for people and programs.

`summary` turns a run's raw counts into one plain dictionary: that is `demo-report.json`. The table
of the terminal (`table`) and the page (`page`, with `charts` drawn by `svg`) are made from nothing
but this dictionary.
"""

from __future__ import annotations
