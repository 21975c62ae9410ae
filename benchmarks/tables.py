"""Results as Markdown tables, and the part of README.md that is made of them.

`python -m benchmarks.tables --write` puts the tables of the newest JSON of each benchmark in
`results/` into README.md, between its markers; `--check` says whether they are there already.
Numbers of that part are never written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from . import hit_ratio

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"
RESULTS = HERE / "results"
MARKED = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def number(value: float) -> str:
    """Three figures, with thin groups of thousands."""
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if value >= 0.001 else f"{value:.1g}"


def spread(part: dict[str, Any]) -> str:
    """Median, and least to most."""
    if len(part["samples"]) == 1:
        return number(part["median"])
    return f"{number(part['median'])} ({number(part['min'])}–{number(part['max'])})"


def ratio(part: dict[str, Any]) -> str:
    """How many times better we are; bold where we lose."""
    text = f"{number(part['median'])}×"
    if part["median"] < 1:
        text = f"**{text}**"
    if len(part["samples"]) == 1:
        return text
    return f"{text} ({number(part['min'])}–{number(part['max'])})"


def render(document: dict[str, Any]) -> str:
    """All tables of a document, one per group."""
    groups = dict.fromkeys(result["group"] for result in document["results"])
    return "\n\n".join([heading(document), *(table(document, group) for group in groups)]) + "\n"


def heading(document: dict[str, Any]) -> str:
    """When, where and with what the numbers were taken."""
    machine, versions = document["machine"], dict(document["versions"])
    commit = versions.pop("commit", "unknown")
    options, load = document["options"], document["load_average"]
    calibration = document["calibration_ms"]
    lines = [
        f"Taken {document['started'][:10]} at commit {commit}: {options['rounds']} rounds, "
        f"{options['seconds']:g} s a measurement. {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['architecture']}, Linux {machine['kernel']}; "
        + ", ".join(f"{name} {value}" for name, value in versions.items())
        + f". Load average {load['start']:g} at the start, {load['end']:g} at the end; the fixed "
        f"piece of work between rounds took {spread(calibration)} ms."
    ]
    if document["quick"]:
        lines.append("\n**From a --quick run: these figures mean nothing.**")
    lines.append("")
    lines += [f"- *{name}*: {text}" for name, text in document["systems"].items()]
    lines += [f"- {name}: {text}" for name, text in document["notes"].items()]
    return "\n".join(lines)


def table(document: dict[str, Any], group: str) -> str:
    """One group: what was measured, a column per system; then the ratios, a column per pair."""
    results = [result for result in document["results"] if result["group"] == group]
    systems = [name for name in document["systems"] if any(name in r["systems"] for r in results)]
    pairs = [
        (our, peer)
        for our in document["ours"]
        for peer in systems
        if any(peer in result["ratios"].get(our, {}) for result in results)
    ]
    measured = [[group, "unit", *systems]]
    compared = [["how many times better", *(f"{our} : {peer}" for our, peer in pairs)]]
    for result in results:
        parts = [result["systems"].get(name) for name in systems]
        cells = [spread(part) if part else "–" for part in parts]
        measured.append([result["case"], result["unit"], *cells])
        parts = [result["ratios"].get(our, {}).get(peer) for our, peer in pairs]
        compared.append([result["case"], *(ratio(part) if part else "–" for part in parts)])
    return f"{_rows(measured)}\n\n{_rows(compared)}"


def _rows(rows: list[list[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def newest(benchmark: str) -> Path | None:
    """The last dated JSON of a benchmark that is checked in."""
    found = sorted(RESULTS.glob(f"{benchmark}-*.json"))
    return found[-1] if found else None


def filled(text: str) -> str:
    """README's text with the tables of the newest results between its markers."""

    def replace(match: re.Match[str]) -> str:
        path = newest(match[2])
        if match[2] == "hit_ratio":
            rows = json.loads((RESULTS / "hit_ratio.json").read_text())
            body = f"\n{hit_ratio.table(rows)}\n\n![hit_ratio](results/hit_ratio.svg)\n\n"
        elif path is None:
            body = "No results yet.\n"
        else:
            source = f"\nFrom [`results/{path.name}`](results/{path.name}). "
            body = source + render(json.loads(path.read_text()))
            for chart in sorted(RESULTS.glob(f"{path.stem}-*.svg")):
                body += f"\n![{chart.stem}](results/{chart.name})\n"
            body += "\n"
        return f"{match[1]}{body}{match[3]}"

    return MARKED.sub(replace, text)


def main() -> None:
    """Write README's tables, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="put the tables into README.md")
    what.add_argument("--check", action="store_true", help="fail when README.md is out of date")
    options = parser.parse_args()
    old = README.read_text()
    new = filled(old)
    if options.write:
        README.write_text(new)
    elif old != new:
        sys.exit("README.md is out of date: python -m benchmarks.tables --write")


if __name__ == "__main__":
    main()
