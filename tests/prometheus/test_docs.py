"""The code of docs/metrics.md runs, and every family that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from programs import run

from celeriac import own_metrics
from celeriac.celery.task_counts import COUNTED
from celeriac.django import durations

pytest.importorskip("prometheus_client", reason="the extra celeriac[prometheus] isn't installed")

TEXT = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def test_all_blocks_run() -> None:
    assert len(BLOCKS) == 3
    said = run("url = URL\n" + "\n".join(BLOCKS) + "\nprint(text.decode())")
    assert 'orders_total{shop="north"} 1.0' in said
    assert 'http_requests_total{method="GET",status="200"} 1.0' in said
    assert "celeriac_up 1.0" in said


def test_all_families_are_named() -> None:
    named = set(re.findall(r"`(celer[a-z_]+)`", TEXT))
    first = "celeriac_cache_hits_total"
    named |= {first.replace("_hits_total", rest) for rest in re.findall(r"`(_[a-z_]+)`", TEXT)}
    for name, (kind, _, _) in own_metrics.FAMILIES.items():
        assert name + "_total" * (kind == own_metrics.COUNTER) in named
    assert durations.NAME in named
    for what in COUNTED:
        assert f"`celery_task_{what}_total`" in TEXT or f"`_{what}_total`" in TEXT
