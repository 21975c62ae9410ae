"""The gate runs what it names, and says so when it can't."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest


def steps(run: Path) -> list[str]:
    return re.findall(r'^  "(\w+) \d+"', run.read_text(), re.MULTILINE)


def gate(tree: Path, *arguments: str) -> tuple[int, str]:
    environment = {**os.environ, "CI_WORK": str(tree / "ci")}
    done = subprocess.run(
        ["bash", str(tree / ".ci" / "run"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def small_gate(root: Path, tmp_path: Path) -> Path:
    """The gate with its steps `lint` and `types` replaced by a good and a bad one."""
    shutil.copytree(root / ".ci", tmp_path / ".ci")
    (tmp_path / ".ci" / "steps" / "lint.sh").write_text(
        'source "$(dirname "$0")/../lib.sh"\ncount 7 0 2\n'
    )
    (tmp_path / ".ci" / "steps" / "types.sh").write_text(
        'source "$(dirname "$0")/../lib.sh"\nfalse\necho went on\n'
    )
    return tmp_path


def test_each_step_has_its_script(root: Path) -> None:
    scripts = {path.stem for path in (root / ".ci" / "steps").glob("*.sh")}
    assert set(steps(root / ".ci" / "run")) == scripts


def test_scripts_are_valid(root: Path) -> None:
    for script in [root / ".ci" / "run", *(root / ".ci").rglob("*.sh")]:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_good_steps(small_gate: Path) -> None:
    status, said = gate(small_gate, "lint")
    assert status == 0
    assert re.search(r"^7 passed, 0 failed, 2 skipped in \d+s\n\Z", said, re.MULTILINE), said


def test_bad_step_fails_the_run(small_gate: Path) -> None:
    status, said = gate(small_gate, "types", "lint")
    assert status == 1
    assert "went on" not in said
    assert "types: FAILED: exit status 1" in said
    assert re.search(r"^7 passed, 1 failed, 2 skipped in \d+s\n\Z", said, re.MULTILINE), said


def test_both_tracks_count(small_gate: Path) -> None:
    (small_gate / ".ci" / "steps" / "cpp.sh").write_text("echo of the core; exit 3\n")
    status, said = gate(small_gate, "cpp", "lint")
    assert status == 1
    assert "of the core" in said
    assert "cpp: FAILED: exit status 3" in said
    assert "lint: ok" in said
    assert re.search(r"^7 passed, 1 failed, 2 skipped in \d+s\n\Z", said, re.MULTILINE), said


def test_unknown_step(small_gate: Path) -> None:
    status, said = gate(small_gate, "lint", "nonsense")
    assert status == 2
    assert "unknown step 'nonsense'" in said
