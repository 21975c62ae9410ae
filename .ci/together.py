"""Writes sources that each include several of a folder's, for a tool that reads headers slowly.

    together.py BUILD FOLDER...

BUILD is CMake's, with compile_commands.json. Prints the paths of the sources, which lie in
BUILD/together with a compile_commands.json of their own; each source of the folders is in one of
them exactly. Those that don't compile together are apart.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path


def compiles(compiler: list[str], sources: list[Path], to: Path) -> str:
    """Writes the source that includes these; what clang says when it isn't valid."""
    lines = [f'#include "{source}"  // NOLINT(bugprone-suspicious-include)' for source in sources]
    to.write_text("\n".join(lines) + "\n")
    command = [*compiler, "-fsyntax-only", "-w", str(to)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stderr


def split(compiler: list[str], sources: list[Path], folder: Path, name: str) -> list[Path]:
    """Sources that include these, as few as their names allow."""
    made = []
    while sources:
        here, later = sources, []
        to = folder / f"{name}{len(made) + 1}.cpp"
        while said := compiles(compiler, here, to):
            blamed = re.search(r"^(\S+?):\d+:\d+: (?:fatal )?error", said, re.MULTILINE)
            bad = [source for source in here if blamed and str(source) == blamed[1]]
            if not bad or len(here) == 1:
                raise SystemExit(said)
            here = [source for source in here if source not in bad]
            later += bad
        made.append(to)
        sources = later
    return made


def main() -> None:
    build = Path(sys.argv[1])
    folder = build / "together"
    folder.mkdir(exist_ok=True)
    entries = json.loads((build / "compile_commands.json").read_text())
    commands = {Path(entry["file"]): entry["command"].split() for entry in entries}
    made: list[Path] = []
    database = []
    for layer in sys.argv[2:]:
        sources = sorted(Path(layer).resolve().rglob("*.cpp"))
        if not sources:
            raise SystemExit(f"no C++ sources in {layer}")
        missing = [source for source in sources if source not in commands]
        if missing:
            raise SystemExit(f"not compiled by CMake: {missing}")
        command = commands[sources[0]]
        options = command[1 : command.index("-o")]
        for to in split(["clang++-14", *options], sources, folder, Path(layer).name):
            line = [command[0], *options, "-c", str(to)]
            database.append({"directory": str(build), "file": str(to), "arguments": line})
            made.append(to)
    (folder / "compile_commands.json").write_text(json.dumps(database))
    print("\n".join(map(str, made)))


if __name__ == "__main__":
    main()
