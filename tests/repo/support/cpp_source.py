"""Just enough of C++ to find the functions of our own sources: heads, bodies, comments.

Not a compiler: it relies on the house style (no macros that hide braces, one class per concept).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

# Comments, strings, character constants, preprocessor lines.
OPAQUE = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|(?<!\w)\'(?:\\.|[^\'\\\n])\'|^[ \t]*#(?:\\\n|[^\n])*',
    re.DOTALL | re.MULTILINE,
)
TYPE_HEAD = re.compile(r"\b(class|struct|union|enum(?: class)?)\s+(?:\[\[\w+\]\]\s*)?([\w:]+)")
ADORNMENT = re.compile(r"\btemplate\s*<[^{};()]*?>(?=\s*\w)|\balignas\s*\([^()]*\)|\bfinal\b")
LABEL = re.compile(r"\s*(public|private|protected)\s*:(?!:)")
NAME = re.compile(r"((?:\w+::)*)(operator\s*\S+|~?\w+)\s*$")


@dataclass
class Function:
    path: Path
    owner: str  # its class, or ""
    name: str
    public: bool
    head: str
    line: int
    last_line: int
    doc: str = ""  # the comment above it
    shared_doc: str = ""  # or above the first of several that follow each other without a gap
    body: str = ""  # without comments and strings
    points: list[str] = field(default_factory=list)  # its crash points

    @property
    def changes_its_object(self) -> bool:
        """Neither const nor static nor a constructor, destructor or operator."""
        after = self.head[self.head.rfind(")") :]
        return not (
            re.search(r"\bconst\b", after)
            or re.search(r"\bstatic\b|\bfriend\b|=\s*(default|delete)", self.head)
            or self.name in (self.owner, f"~{self.owner}")
            or self.name.startswith("operator")
        )

    def __str__(self) -> str:
        return f"{self.path.name}: {self.owner}::{self.name}" if self.owner else self.name


def functions(path: Path) -> list[Function]:
    """All functions that a file declares or defines."""
    raw = path.read_text()
    code = OPAQUE.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), raw)
    found: list[Function] = []
    _scan(path, raw, code, 0, len(code), "", True, found)
    for before, this in pairwise(found):
        if not this.doc and this.line == before.last_line + 1:
            this.shared_doc = before.doc or before.shared_doc
    return found


def _scan(
    path: Path,
    raw: str,
    code: str,
    at: int,
    end: int,
    owner: str,
    public: bool,
    found: list[Function],
) -> None:
    start = at
    while at < end:
        sign = code[at]
        at += 1
        if sign == "(":
            at = _close(code, at - 1, end)
            continue
        if sign not in ";{":
            continue
        while label := LABEL.match(code, start, at):
            public = label.group(1) == "public"
            start = label.end()
        head = code[start : at - 1]
        close = _close(code, at - 1, end) if sign == "{" else at
        plain = ADORNMENT.sub("", head)
        kind = TYPE_HEAD.search(plain)
        if sign == "{" and re.search(r"\bnamespace\b|\bextern\b", head):
            _scan(path, raw, code, at, close - 1, owner, public, found)
        elif sign == "{" and kind and "(" not in plain:
            if not kind.group(1).startswith("enum"):
                open_to_all = kind.group(1) != "class"
                _scan(path, raw, code, at, close - 1, kind.group(2), open_to_all, found)
        elif "(" in head:
            function = _function(path, raw, code, start, at - 1, owner, public)
            if function:
                function.last_line = _line(code, close)
            if function and sign == "{":
                function.body = code[at : close - 1]
                function.points = re.findall(r'CRASH_POINT\("([^"]*)"\)', raw[at : close - 1])
            if function:
                found.append(function)
        at = start = close


def _close(code: str, at: int, end: int) -> int:
    """The place after the bracket that closes the one at `at`."""
    opening, closing = code[at], {"(": ")", "{": "}"}[code[at]]
    depth = 0
    for place in range(at, end):
        depth += (code[place] == opening) - (code[place] == closing)
        if depth == 0:
            return place + 1
    return end


def _function(
    path: Path, raw: str, code: str, start: int, end: int, owner: str, public: bool
) -> Function | None:
    head = code[start:end]
    before = head[: head.index("(")]
    name = NAME.search(before)
    if name is None or ("=" in before and "operator" not in before):
        return None
    scope = name.group(1).split("::")[-2] if name.group(1) else owner
    first = start + len(head) - len(head.lstrip())
    line = _line(code, first)
    return Function(path, scope, name.group(2), public, head, line, line, _doc(raw, first))


def _line(code: str, at: int) -> int:
    return code.count("\n", 0, at) + 1


def _doc(raw: str, at: int) -> str:
    """The comment lines just above the line of `at`."""
    lines = raw[: raw.rfind("\n", 0, at) + 1].splitlines()
    doc: list[str] = []
    while lines and lines[-1].strip().startswith("//"):
        doc.insert(0, lines.pop().strip().lstrip("/ "))
    return "\n".join(doc)
