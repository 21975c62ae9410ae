"""Documents lead somewhere: links exist, commands are the ones that the gate runs.

And the project speaks of itself alone: no path of somebody's machine, no package registry's host.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

COMMANDS = {
    "install-and-demo": "pip install '.[demo]' && celeriac demo",
    "install-and-test": "pip install '.[test]' && pytest",
}
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)")
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+\s+(.*?)\s*#*$", re.MULTILINE)

# Character classes keep this file from matching itself.
FOREIGN = re.compile(
    r"(?<![\w.$}])/(?:hom[e]|roo[t]|User[s]|wor[k]|works[p]ace)/"
    r"|[.]py[e]nv\b|py[p]i[.]org|python[h]osted|deb[.]deb[i]an|npm[j]s[.](?:org|com)"
    r"|anaconda[.]or[g]|crates[.]i[o]|ghcr[.]i[o]"
)


def anchors(document: Path) -> set[str]:
    """The anchors of the headings, made as GitHub makes them."""
    text = FENCE.sub("", document.read_text())
    found: set[str] = set()
    for heading in HEADING.findall(text):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", heading).lower())
        slug, number = plain.replace(" ", "-"), 0
        while (f"{slug}-{number}" if number else slug) in found:
            number += 1
        found.add(f"{slug}-{number}" if number else slug)
    return found


def broken_links(root: Path, documents: list[Path]) -> list[str]:
    problems = []
    for document in documents:
        for link in LINK.findall(FENCE.sub("", document.read_text())):
            if re.match(r"[a-z][a-z0-9+.-]*:", link):
                continue
            name, _, anchor = link.partition("#")
            target = (document.parent / name).resolve() if name else document
            where = f"{document.relative_to(root)}: {link}"
            if not target.exists():
                problems.append(f"{where} doesn't exist")
            elif not target.is_relative_to(root):
                problems.append(f"{where} leads out of the tree")
            elif anchor and target.suffix == ".md" and anchor not in anchors(target):
                problems.append(f"{where} has no such heading")
    return problems


def foreign_text(root: Path, files: list[Path]) -> list[str]:
    problems = []
    for path in files:
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:
            continue
        problems += [
            f"{path.relative_to(root)}:{number}: {found.group()}"
            for number, line in enumerate(lines, 1)
            if (found := FOREIGN.search(line))
        ]
    return problems


def command_after(text: str, marker: str) -> str:
    found = re.search(rf"<!-- ci: {marker} -->\s*```\w*\n(.*?)```", text, re.DOTALL)
    return found.group(1).strip() if found else ""


def test_links_exist(root: Path, project_files: list[Path]) -> None:
    documents = [path for path in project_files if path.suffix == ".md"]
    assert root / "README.md" in documents
    assert broken_links(root, documents) == []


def test_project_speaks_of_itself_alone(root: Path, project_files: list[Path]) -> None:
    assert foreign_text(root, project_files) == []


@pytest.mark.parametrize("marker", COMMANDS)
def test_readme_shows_the_command_that_the_gate_runs(root: Path, marker: str) -> None:
    assert command_after((root / "README.md").read_text(), marker) == COMMANDS[marker]


def test_settings_list_every_option(root: Path) -> None:
    from celeriac import url
    from celeriac.celery import options as celery_options
    from celeriac.django import options as django_options

    known = {field.name for field in dataclasses.fields(url.Options)}
    known.update(django_options.DJANGO_OPTIONS, django_options.CACHE_OPTIONS)
    known.update(celery_options.BROKER_OPTIONS, celery_options.RESULT_OPTIONS)
    rows = re.findall(r"^\| (`.*?`) \|", (root / "docs/settings.md").read_text(), re.MULTILINE)
    assert known <= {name for row in rows for name in re.findall(r"`(.*?)`", row)}


@pytest.mark.parametrize(
    ("link", "complaint"),
    [
        ("there.md", ""),
        ("there.md#a-heading-with-code", ""),
        ("#twice-1", ""),
        ("https://example.org/x", ""),
        ("gone.md", "doesn't exist"),
        ("there.md#gone", "has no such heading"),
        ("../outside.md", "leads out of the tree"),
    ],
)
def test_broken_link_is_found(tmp_path: Path, link: str, complaint: str) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    (tmp_path / "outside.md").touch()
    (root / "there.md").write_text("## A heading, with `code`\n")
    document = root / "README.md"
    document.write_text(f"# Twice\n\n# Twice\n\n[a]({link})\n\n```\n[b](not-a-link.md)\n```\n")
    problems = broken_links(root, [document])
    assert [complaint in problem for problem in problems] == ([True] if complaint else [])


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("path = '" + "/ho" + "me/me/x'", True),
        ("see https://py" + "pi.org/x", True),
        ("$HOME/.py" + "env/versions", True),
        ("#!/usr/bin/env bash", False),
        ("CELERIAC_URL=file:///var/lib/app", False),
        ("rsync here/ro" + "ot/x", False),
    ],
)
def test_foreign_text_is_found(tmp_path: Path, line: str, wrong: bool) -> None:
    path = tmp_path / "file.txt"
    path.write_text(f"first\n{line}\n")
    assert [problem.split(":")[1] for problem in foreign_text(tmp_path, [path])] == ["2"] * wrong


def test_another_command_is_seen() -> None:
    text = "<!-- ci: x -->\n```sh\npip install .\n```\n```sh\nother\n```\n"
    assert command_after(text, "x") == "pip install ."
    assert command_after(text, "y") == ""
