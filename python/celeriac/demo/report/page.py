"""`demo-report.html`: one file with nothing to load, readable in light and dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from . import charts
from .style import STYLE
from .table import on_call_table, table

CHARTS: tuple[tuple[str, str, Callable[[Sequence[dict[str, Any]]], str]], ...] = (
    ("Requests per second", "Higher is better.", charts.throughput),
    (
        "Processor time per request",
        "Of all processes, the requests' tasks included; hardly touched by what else the machine "
        "does. Lower is better.",
        charts.processor_time,
    ),
    (
        "Hit ratio over all web workers",
        "Over the requests that every phase answered. Higher is better.",
        charts.hit_ratios,
    ),
    (
        "Webhook answer, p95",
        "What the payment provider waits for. Lower is better.",
        charts.webhooks,
    ),
    (
        "Answer times by kind of view",
        "Large dot p50, small dot and number p95, end of the line p99. Logarithmic scale; "
        "left is better.",
        charts.latencies,
    ),
    ("Requests per second over time", "The measured load, warm-up left out.", charts.timeline),
    (
        "How long tasks waited in the queue",
        "Share of the tasks whose first attempt had started after this time. Left is better.",
        charts.queue_waits,
    ),
    (
        "Memory",
        "Proportional set size of all the shop's processes, a celeriac store included; "
        "the lighter part is the Redis server. Lower is better.",
        charts.memory,
    ),
)
MARKS = {True: ("met", "✓"), False: ("missed", "✗"), None: ("unknown", "–")}


def page(summary: dict[str, Any]) -> str:
    """The whole page."""
    phases = summary["phases"]
    options, machine = summary["options"], summary["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in summary["versions"].items())
    legend = "".join(
        f'<span><i class="swatch {phase["stack"]}"></i>{escape(phase["title"])}</span>'
        for phase in phases
    )
    body = [
        "<h1>celeriac demo</h1>",
        f"<p class=quiet>{options['workers']} web workers × {options['threads']} threads, "
        f"{options['task_processes']} task processes, {options['seconds']:g} s of load for each "
        f"phase, on {machine['cpus']} CPUs ({escape(machine['architecture'])}). "
        f"{escape(versions)}. {escape(summary['made'][:10])}.</p>",
        f'<ul class="goals">{"".join(_goal(goal) for goal in summary["goals"])}</ul>',
        f'<div class="scroll">{_table(*table(summary))}</div>',
        "".join(
            f"<p class=quiet>{escape(name)} wasn't run: {escape(reason)}</p>"
            for name, reason in summary["skipped"].items()
        ),
        f'<p class="legend">{legend}</p>',
    ]
    for title, hint, draw in CHARTS:
        picture = draw(phases)
        if picture:
            body.append(
                f"<figure><figcaption><b>{escape(title)}</b> {escape(hint)}</figcaption>"
                f"{picture}</figure>"
            )
    if summary["on_call"]:
        body.append("<h2>What whoever is on call sees</h2>")
        body.append(f'<div class="scroll">{_table(*on_call_table(summary["on_call"]))}</div>')
    body.append("<h2>What is compared</h2>")
    how = "".join(
        f"<li><b>{escape(phase['title'])}</b>: {escape(phase['how'])}</li>" for phase in phases
    )
    rules = "".join(f"<li>{escape(rule)}</li>" for rule in summary["compared"])
    body.append(f"<ul>{how}</ul><ul>{rules}</ul>")
    body.append(f"<p class=quiet>Requests: SHA-256 {escape(summary['plan_sha256'])}</p>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>celeriac demo</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def _goal(goal: dict[str, Any]) -> str:
    kind, mark = MARKS[goal["met"]]
    return (
        f'<li class="{kind}"><b>{mark}</b> {escape(goal["goal"])} '
        f"<span class=quiet>{escape(goal['detail'])}</span></li>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in heads)
    lines = "".join(
        f"<tr><th scope=row>{escape(row[0])}</th>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
