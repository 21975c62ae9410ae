"""kombu's own integration tests, from the source release of the kombu that is installed.

The mixins are not part of kombu's wheels. They are downloaded once with pip, as source, and kept
beside pytest's cache. KOMBU_SDIST may name a downloaded ``kombu-X.tar.gz`` instead.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import kombu

CACHE = Path(__file__).parents[3] / ".pytest_cache" / f"kombu-{kombu.__version__}"
MEMBER = f"kombu-{kombu.__version__}/t/integration/common.py"


class Unavailable(Exception):
    """The source can't be had; the text says why and what to do."""


def _archive() -> Path:
    given = os.environ.get("KOMBU_SDIST")
    if given:
        return Path(given)
    archive = CACHE / f"kombu-{kombu.__version__}.tar.gz"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--no-binary", "kombu", "--dest", str(CACHE), f"kombu=={kombu.__version__}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise Unavailable(f"pip could not be run: {exc}") from exc
        if done.returncode or not archive.exists():
            raise Unavailable(
                f"kombu {kombu.__version__} could not be downloaded as source; set KOMBU_SDIST "
                f"to its .tar.gz. pip said: {done.stderr.strip()[-300:]}"
            )
    return archive


def integration_tests() -> ModuleType:
    """The module ``t/integration/common.py`` of the installed kombu.

    Raises:
        Unavailable: it can't be downloaded.
    """
    path = CACHE / "common.py"
    archive = _archive()
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            member = tar.extractfile(MEMBER)
            if member is None:
                raise Unavailable(f"{archive} holds no {MEMBER}")
            path.write_bytes(member.read())
    spec = importlib.util.spec_from_file_location("kombu_integration_common", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
