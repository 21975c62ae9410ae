"""One version, in `pyproject.toml`; everything else says the same."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

import celeriac


def declared_version(pyproject: Path) -> str:
    # Not by tomllib, which CPython 3.10 doesn't have.
    project = pyproject.read_text().split("[project]\n", 1)[1].split("\n[", 1)[0]
    (version,) = re.findall(r'^version = "([^"]+)"$', project, re.MULTILINE)
    return str(version)


def test_package_has_the_declared_version(root: Path) -> None:
    assert celeriac.__version__ == declared_version(root / "pyproject.toml")


def test_installed_distribution_has_the_declared_version(root: Path) -> None:
    assert metadata.version("celeriac") == declared_version(root / "pyproject.toml")


def test_another_version_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "pyproject.toml"
    file.write_text('[project]\nname = "x"\nversion = "9.8.7"\n[tool.x]\nversion = "1"\n')
    assert declared_version(file) == "9.8.7"
    file.write_text('[project]\nname = "x"\n[tool.x]\nversion = "1"\n')
    with pytest.raises(ValueError, match="not enough values"):
        declared_version(file)
