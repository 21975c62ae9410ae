"""What `pyproject.toml` promises is in the package, and all of the package is installed."""

from __future__ import annotations

import ast
import re
from importlib import metadata
from pathlib import Path

import pytest


def entry_points(pyproject: Path) -> dict[str, str]:
    """Name to "module:attribute" of all scripts and entry points."""
    found = {}
    for section in pyproject.read_text().split("\n["):
        if section.startswith(("project.scripts]", "project.entry-points.")):
            found.update(re.findall(r'^"?([\w+]+)"? = "([\w.]+:\w+)"$', section, re.MULTILINE))
    return found


def defines(python: Path, target: str) -> bool:
    """Whether the source of "module:attribute" binds that name. Imports nothing."""
    module, _, attribute = target.partition(":")
    place = python.joinpath(*module.split("."))
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not path.is_file():
        return False
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(t.id for t in targets if isinstance(t, ast.Name))
    return attribute in names


def test_entry_points_lead_to_code(root: Path) -> None:
    found = entry_points(root / "pyproject.toml")
    assert {"celeriac", "celeriac+shm", "celeriac+rediss"} <= found.keys()
    assert [target for target in found.values() if not defines(root / "python", target)] == []


def test_all_of_the_package_is_installed(root: Path, project_files: list[Path]) -> None:
    installed = metadata.distribution("celeriac").files or []
    names = {file.as_posix() for file in installed if file.as_posix().startswith("celeriac/")}
    if not names:
        pytest.skip("the checkout itself is on the path; to test the wheel: pip install .")
    package = root / "python"
    source = {
        path.relative_to(package).as_posix() for path in project_files if package in path.parents
    }
    assert "celeriac/py.typed" in source
    assert source - names == set()
    extras = {name for name in names - source if "__pycache__" not in name}
    assert len(extras) == 1, extras
    assert extras.pop().startswith("celeriac/_core.")


def test_missing_target_is_found(tmp_path: Path) -> None:
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "__init__.py").write_text("from x import here\n")
    (tmp_path / "some" / "part.py").write_text("class There: ...\nvalue: int = 1\n")
    targets = ["some:here", "some.part:There", "some.part:value", "some:gone", "some.gone:x"]
    assert [defines(tmp_path, target) for target in targets] == [True, True, True, False, False]


def test_entry_points_are_read(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text(
        '[project]\nname = "x"\n\n[project.scripts]\na = "m:f"\n\n'
        '[project.entry-points."g"]\n"b+c" = "m.n:C"\n\n[tool.x]\nd = "m:g"\n'
    )
    assert entry_points(file) == {"a": "m:f", "b+c": "m.n:C"}
