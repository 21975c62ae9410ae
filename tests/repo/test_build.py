"""A build that can't work ends at once, with a sentence that says what is supported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORTED = {
    "CMAKE_SYSTEM_NAME": "Linux",
    "CMAKE_SYSTEM_PROCESSOR": "x86_64",
    "CMAKE_SIZEOF_VOID_P": "8",
    "CMAKE_CXX_COMPILER_ID": "GNU",
    "CMAKE_CXX_COMPILER_VERSION": "12.2.0",
}


def cmake(*arguments: str | Path) -> tuple[int, str]:
    beside_python = Path(sys.executable).parent / "cmake"
    program = str(beside_python) if beside_python.exists() else shutil.which("cmake")
    if program is None:
        pytest.skip("no cmake on the PATH: pip install '.[test]'")
    command = [program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, ""),
        ({"CMAKE_SYSTEM_PROCESSOR": "aarch64"}, ""),
        ({"CMAKE_CXX_COMPILER_ID": "Clang", "CMAKE_CXX_COMPILER_VERSION": "14.0.6"}, ""),
        ({"CMAKE_SYSTEM_NAME": "Darwin"}, "This is Darwin."),
        ({"CMAKE_SYSTEM_PROCESSOR": "riscv64"}, "This CPU is riscv64."),
        ({"CMAKE_SIZEOF_VOID_P": "4"}, "4-byte pointers"),
        ({"CMAKE_CXX_COMPILER_VERSION": "11.4.0"}, "This compiler is GNU 11.4.0"),
        (
            {"CMAKE_CXX_COMPILER_ID": "Clang", "CMAKE_CXX_COMPILER_VERSION": "13.0.1"},
            "This compiler is Clang 13.0.1",
        ),
        ({"CMAKE_CXX_COMPILER_ID": "MSVC"}, "This compiler is MSVC"),
    ],
)
def test_platform(root: Path, tmp_path: Path, change: dict[str, str], complaint: str) -> None:
    # As a script: that what it looks at is set here, and not found by CMake.
    lines = [f'set({name} "{value}")' for name, value in {**SUPPORTED, **change}.items()]
    script = tmp_path / "platform.cmake"
    script.write_text("\n".join([*lines, f'include("{root}/cmake/CeleriacPlatform.cmake")']))
    status, said = cmake("-P", script)
    assert (status != 0) == bool(complaint), said
    assert complaint in said
    assert ("64-bit Linux on x86-64 and aarch64" in said) == bool(complaint)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ("CELERIAC_SANITIZE=memory", "can be address, undefined, thread"),
        ("CELERIAC_SANITIZE=address,thread", "address and thread exclude each other"),
        ("CELERIAC_BOOST_INCLUDE_DIR={old_boost}", "No Boost >= 1.74"),
    ],
)
def test_option(root: Path, tmp_path: Path, option: str, complaint: str) -> None:
    headers = tmp_path / "boost"
    (headers / "lockfree").mkdir(parents=True)
    (headers / "lockfree" / "queue.hpp").touch()
    (headers / "version.hpp").write_text("#define BOOST_VERSION 107300\n")
    define = "-D" + option.format(old_boost=tmp_path)
    build = tmp_path / "build"
    status, said = cmake("-S", root, "-B", build, "-DCELERIAC_PYTHON_MODULE=OFF", define)
    assert status != 0
    assert complaint in said


def test_new_enough_boost_is_taken(root: Path, tmp_path: Path) -> None:
    headers = tmp_path / "boost"
    (headers / "lockfree").mkdir(parents=True)
    (headers / "lockfree" / "queue.hpp").touch()
    (headers / "version.hpp").write_text("#define BOOST_VERSION 107400\n")
    define = f"-DCELERIAC_BOOST_INCLUDE_DIR={tmp_path}"
    build = tmp_path / "build"
    status, said = cmake("-S", root, "-B", build, "-DCELERIAC_PYTHON_MODULE=OFF", define)
    assert status == 0, said
    assert f"Boost headers: {tmp_path}" in said
