"""kombu's own integration tests, from the source release of the kombu that is installed.

The mixins are not part of kombu's wheels. They are downloaded once with pip, as source, and kept
beside pytest's cache. KOMBU_SDIST may name a downloaded ``kombu-X.tar.gz`` instead.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import kombu
from sdist import Unavailable, download

CACHE = Path(__file__).parents[3] / ".pytest_cache" / f"kombu-{kombu.__version__}"
MEMBER = f"kombu-{kombu.__version__}/t/integration/common.py"


def _archive() -> Path:
    given = os.environ.get("KOMBU_SDIST")
    return Path(given) if given else download("kombu", kombu.__version__, CACHE)


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
