"""What a PromQL expression names: metrics, and the labels that it selects by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset"} | {
    "and",
    "or",
    "unless",
    "inf",
    "nan",
}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_RANGES = re.compile(r"\[[^\]]*\]")
_NAME = re.compile(r"(?<![\w:.])([A-Za-z_:][\w:]*)\s*(\{[^}]*\}|\()?")


def metrics(expression: str) -> dict[str, set[str]]:
    """Names of metrics, each with the labels that it is selected by."""
    text = _LISTS.sub(" ", _RANGES.sub(" ", _STRING.sub('""', expression)))
    found: dict[str, set[str]] = {}
    for name, rest in _NAME.findall(text):
        if rest != "(" and name not in WORDS:
            found.setdefault(name, set()).update(re.findall(r"([A-Za-z_]\w*)\s*[=!]", rest))
    return found


def expressions(rules: Path) -> list[str]:
    """All of a file of rules, each of which stands on a line of its own."""
    text = rules.read_text()
    found = re.findall(r"^\s+expr: (.+)$", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^\s+- (?:record|alert): ", text, re.MULTILINE))
    return found


def recorded(rules: Path) -> list[str]:
    """Names of a file's recording rules."""
    return re.findall(r"^\s+- record: (\S+)$", rules.read_text(), re.MULTILINE)


def alerts(rules: Path) -> list[str]:
    """Names of a file's alerts."""
    return re.findall(r"^\s+- alert: (\S+)$", rules.read_text(), re.MULTILINE)


def queries(dashboard: Path) -> list[str]:
    """All that a dashboard asks Prometheus."""
    return list(_queries(json.loads(dashboard.read_text())))


def _queries(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for name, value in part.items():
            if name == "expr" or (name == "query" and isinstance(value, str)):
                if value != "prometheus":  # the kind of a data source
                    yield unwrapped(value)
            else:
                yield from _queries(value)
    elif isinstance(part, list):
        for each in part:
            yield from _queries(each)


def unwrapped(query: str) -> str:
    """label_values(X, label) is Grafana's own; X is what Prometheus sees of it."""
    found = re.fullmatch(r"label_values\((.*), *\w+\)", query)
    return found[1] if found else query


def filled(query: str) -> str:
    """With values for Grafana's variables."""
    return re.sub(r"\$(?:job|instance|view)\b", ".*", query.replace("$__rate_interval", "1m"))
