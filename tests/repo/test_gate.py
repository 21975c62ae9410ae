"""The gate runs what it names, and says so when it can't."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
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


def test_sources_that_are_read_together(root: Path, tmp_path: Path) -> None:
    """Those with helpers of the same name are apart, and what is wrong in any of them is found."""
    for tool in ("clang++-14", "clang-tidy-14"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on the PATH: apt install clang-tidy-14 clang-14")
    folder, build = tmp_path / "src" / "queue", tmp_path / "build"
    folder.mkdir(parents=True)
    build.mkdir()
    helper = "namespace {{ int helper() {{ return 1; }} }}\nint {0}() {{ return helper(); }}\n"
    bodies = {"a": helper.format("a"), "b": helper.format("b"), "c": "int* c() { return 0; }\n"}
    commands = []
    for name, body in bodies.items():
        path = folder / f"{name}.cpp"
        path.write_text(body)
        line = f"c++ -std=c++20 -o {name}.o -c {path}"
        commands.append({"directory": str(build), "file": str(path), "command": line})
    (build / "compile_commands.json").write_text(json.dumps(commands))
    script = [sys.executable, str(root / ".ci" / "together.py"), str(build), str(folder)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = [Path(line) for line in done.stdout.split()]
    included = [re.findall(r"(\w)\.cpp\"", path.read_text()) for path in made]
    assert included == [["a", "c"], ["b"]]
    tidy = ["clang-tidy-14", "-p", str(build / "together"), f"--config-file={root}/.clang-tidy"]
    looked = [subprocess.run([*tidy, str(path)], capture_output=True, text=True) for path in made]
    assert [one.returncode for one in looked] == [1, 0], looked
    assert "modernize-use-nullptr" in looked[0].stdout
