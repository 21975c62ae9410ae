"""No source file has more than 500 lines, and `module.cpp` no more than 40.

A file that is too long is split by concept. C++ lines end before column 101; ruff sees to Python's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDERS = ("src", "python", "tests", "benchmarks", ".ci", "cmake")
SUFFIXES = (".py", ".pyi", ".cpp", ".hpp", ".sh", ".cmake", ".lua", "")
LIMIT = 500
LIMITS = {"src/bindings/module.cpp": 40}
COLUMNS = 100


def too_long(root: Path, files: list[Path]) -> list[str]:
    problems = []
    for path in files:
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] not in FOLDERS or path.suffix not in SUFFIXES:
            continue
        lines = path.read_text().splitlines()
        limit = LIMITS.get(name, LIMIT)
        if len(lines) > limit:
            problems.append(f"{name}: {len(lines)} lines, {limit} are allowed")
        if path.suffix in (".cpp", ".hpp"):
            problems += [
                f"{name}:{number}: {len(line)} columns"
                for number, line in enumerate(lines, 1)
                if len(line) > COLUMNS
            ]
    return problems


def test_files_are_short(root: Path, project_files: list[Path]) -> None:
    assert too_long(root, project_files) == []


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("python/celeriac/big.py", "x = 1\n" * 501, "501 lines"),
        (".ci/run", "true\n" * 501, "501 lines"),
        ("src/bindings/module.cpp", "//\n" * 41, "41 lines, 40 are allowed"),
        ("src/store/wide.hpp", "// " + "x" * 98 + "\n", "wide.hpp:1: 101 columns"),
    ],
)
def test_long_file_is_found(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    (problem,) = too_long(tmp_path, [path])
    assert complaint in problem
    path.write_text(text[: len(text) // 2] + "\n")
    assert too_long(tmp_path, [path]) == []
