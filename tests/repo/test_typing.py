"""The package is typed strictly, and the stubs of the extension say what it has."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_mypy = pytest.mark.skipif(
    importlib.util.find_spec("mypy") is None, reason="mypy isn't here: pip install '.[test]'"
)


def run(*arguments: str | Path, cwd: Path, path: Path | None = None) -> tuple[int, str]:
    environment = dict(os.environ)
    if path is not None:
        environment["PYTHONPATH"] = environment["MYPYPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@needs_mypy
@pytest.mark.slow
def test_package_passes_mypy_strict(root: Path, tmp_path: Path) -> None:
    status, said = run("mypy", "--strict", "--cache-dir", tmp_path, "python/celeriac", cwd=root)
    assert status == 0, said


@needs_mypy
@pytest.mark.slow
def test_stubs_match_the_extension(root: Path, tmp_path: Path) -> None:
    config = ("--mypy-config-file", root / "pyproject.toml")
    allowed = ("--allowlist", root / "tests" / "repo" / "stubtest-allowlist.txt")
    status, said = run("mypy.stubtest", "celeriac._core", *config, *allowed, cwd=tmp_path)
    assert status == 0, said


@needs_mypy
@pytest.mark.slow
def test_untyped_code_is_found(root: Path, tmp_path: Path) -> None:
    (tmp_path / "untyped.py").write_text("def f(x):\n    return x\n")
    config = ("--config-file", root / "pyproject.toml", "--cache-dir", tmp_path)
    status, said = run("mypy", "--strict", *config, "untyped.py", cwd=tmp_path)
    assert status == 1
    assert "no-untyped-def" in said


@needs_mypy
@pytest.mark.slow
def test_wrong_stub_is_found(root: Path, tmp_path: Path) -> None:
    package = tmp_path / "sample"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__init__.pyi").touch()
    (package / "_core.py").write_text("def get(key): ...\n")
    (package / "_core.pyi").write_text("def get(key: str) -> None: ...\ndef gone() -> None: ...\n")
    status, said = run("mypy.stubtest", "sample._core", cwd=tmp_path, path=tmp_path)
    assert status == 1
    assert "sample._core.gone" in said
    assert "sample._core.get" not in said
