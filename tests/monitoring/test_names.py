"""Rules and dashboards name only metrics and labels that a store exposes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

pytest.importorskip("django", reason="the extra celeriac[django] isn't installed")
pytest.importorskip("celery", reason="the extra celeriac[celery] isn't installed")

import everything
import promql

import celeriac
from celeriac.django.durations import NAME

OF_PROMETHEUS = {"up": set(), "ALERTS": {"alertname", "alertstate", "severity"}}
OF_TARGETS = {"job", "instance"}
# What django-mixin and celery-mixin ask for, of what celeriac counts.
MIXINS = {
    "django_http_responses_total_by_status_view_method_total": {"status", "view", "method"},
    "django_http_requests_total_by_view_transport_method_total": {"view", "transport", "method"},
    "django_http_requests_latency_seconds_by_view_method_bucket": {"view", "method", "le"},
    "django_cache_get_total": {"backend"},
    "django_cache_get_hits_total": {"backend"},
    "django_cache_get_misses_total": {"backend"},
    "celery_task_sent_total": {"name", "queue_name", "hostname"},
    "celery_task_received_total": {"name", "queue_name", "hostname"},
    "celery_task_succeeded_total": {"name", "queue_name", "hostname"},
    "celery_task_failed_total": {"name", "queue_name", "hostname", "exception"},
    "celery_task_retried_total": {"name", "queue_name", "hostname"},
    "celery_task_runtime_bucket": {"name", "queue_name", "hostname", "le"},
    "celery_queue_length": {"queue_name"},
    "celery_active_consumer_count": {"queue_name"},
}


def wrong(expressions: Iterable[str], known: dict[str, set[str]]) -> list[str]:
    problems = []
    for expression in expressions:
        for name, labels in promql.metrics(expression).items():
            if name not in known:
                problems.append(f"nothing exposes {name}: {expression}")
                continue
            # What a rule recorded has the labels that the rule left; others are known for sure.
            unknown = set() if ":" in name else labels - known[name] - OF_TARGETS
            problems += [f"{name} has no label {label}: {expression}" for label in unknown]
    return problems


@pytest.fixture
def known(store: celeriac.Store, pack: Path) -> dict[str, set[str]]:
    """All names: a live store's, Prometheus' own, and those that rules record."""
    everything.fill(store)
    found = everything.exposed(store.metrics.exposition(own=True).decode())
    assert f"{NAME}_bucket" in found
    rules = [promql.recorded(path) for path in (pack / "prometheus/rules").iterdir()]
    return {**found, **OF_PROMETHEUS, **{name: set() for names in rules for name in names}}


def test_rules(known: dict[str, set[str]], pack: Path) -> None:
    paths = sorted((pack / "prometheus/rules").iterdir())
    found = {path.name: promql.expressions(path) for path in paths}
    assert set(found) == {"alerts.yml", "mixins.yml", "recording.yml"}
    assert len(found["alerts.yml"]) > 20
    for expressions in found.values():
        assert wrong(expressions, known) == []


def test_dashboards(known: dict[str, set[str]], pack: Path) -> None:
    paths = sorted((pack / "grafana/dashboards").iterdir())
    assert [path.name for path in paths] == ["celeriac-application.json", "celeriac-store.json"]
    for path in paths:
        queries = promql.queries(path)
        assert len(queries) > 25
        assert wrong(map(promql.filled, queries), known) == []


def test_every_family_is_on_a_dashboard(store: celeriac.Store, pack: Path) -> None:
    everything.fill(store)
    asked: set[str] = set()
    for path in (pack / "prometheus/rules/recording.yml", *(pack / "grafana/dashboards").iterdir()):
        text = path.read_text()
        asked.update(name for name in everything.exposed(exposition(store)) if name in text)
    assert asked == set(everything.exposed(exposition(store))) - {"celery_task_runtime_count"}


def exposition(store: celeriac.Store) -> str:
    return store.metrics.exposition(own=True).decode()


def test_names_of_the_mixins_are_there(known: dict[str, set[str]], pack: Path) -> None:
    recorded = promql.recorded(pack / "prometheus/rules/mixins.yml")
    assert set(recorded) == {name for name in MIXINS if name.startswith("django_")}
    for name in set(MIXINS) - set(recorded):
        assert MIXINS[name] == known[name], name


def test_dashboards_can_be_loaded(pack: Path) -> None:
    uids = set()
    for path in (pack / "grafana/dashboards").iterdir():
        dashboard = json.loads(path.read_text())
        uids.add(dashboard["uid"])
        panels = dashboard["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [panel["gridPos"] for panel in panels]
        cells = [
            (x, y)
            for at in places
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        assert len(set(cells)) == len(cells), "panels overlap"
        assert max(x for x, _ in cells) < 24
    assert len(uids) == 2


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("celeriac_up == 0", ""),
        ('sum by (cache) (rate(celeriac_cache_hits_total{cache=~"a{1}"}[5m])) or vector(1)', ""),
        ("celeriac_upp == 0", "nothing exposes celeriac_upp"),
        ("rate(celeriac_cache_hits[5m])", "nothing exposes celeriac_cache_hits"),
        ('celeriac_cache_hits_total{queue="x"}', "has no label queue"),
        ("celeriac:memory:rato > 1", "nothing exposes celeriac:memory:rato"),
        ("1 - (celeriac_up unless on (job) redis_up)", "nothing exposes redis_up"),
    ],
)
def test_wrong_name_is_found(known: dict[str, set[str]], expression: str, complaint: str) -> None:
    problems = wrong([expression], known)
    assert bool(problems) == bool(complaint)
    assert complaint in "".join(problems)
