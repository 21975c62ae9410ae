"""Source distributions of packages whose tests are in there only.

pip fetches one once, in an isolated build, because it must ask a source distribution for its
metadata.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path


class Unavailable(Exception):
    """The source distribution can't be had; the text says why and what would help."""


def download(package: str, version: str, directory: Path) -> Path:
    """The archive, in `directory`, where it stays for later runs."""
    found = _archive(package, version, directory)
    if found is not None:
        return found
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary", package, "--dest", str(directory), f"{package}=={version}"]
    said = " ".join(command)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"install a faster package index: {said} took more than 300 s") from None
    found = _archive(package, version, directory)
    if done.returncode or found is None:
        raise Unavailable(
            f"the tests of {package} are in its source distribution only; install a package index "
            f"that has it, so that this works: {said}\n{done.stderr[-1000:]}"
        )
    return found


def _archive(package: str, version: str, directory: Path) -> Path | None:
    name = re.compile(re.sub("[-_]", "[-_]", package) + f"-{re.escape(version)}.tar.gz", re.I)
    return next((path for path in directory.glob("*.tar.gz") if name.fullmatch(path.name)), None)


def unpack(
    archive: Path, directory: Path, wanted: Callable[[str], bool] = lambda name: True
) -> Path:
    """Unpacks the members with wanted names; the folder that is the top of all."""
    with tarfile.open(archive) as source:
        if hasattr(tarfile, "data_filter"):  # CPython 3.10.12, 3.11.4 and later
            source.extraction_filter = tarfile.data_filter
        members = source.getmembers()
        if not members:
            raise Unavailable(f"{archive} is empty")
        top = members[0].name.split("/")[0]
        source.extractall(directory, [one for one in members if wanted(one.name.partition("/")[2])])
    return directory / top
