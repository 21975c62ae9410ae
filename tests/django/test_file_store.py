"""A cache in a directory of the site's own, from one process to the next."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import celeriac

CODE = """
import sys
from django.conf import settings
backend = "celeriac.django.cache.CeleriacCache"
settings.configure(CACHES={"default": {"BACKEND": backend, "LOCATION": sys.argv[1]}})
from django.core.cache import cache
print(cache.get("k"), cache.set("k", sys.argv[2]), cache.touch("k", 5))
"""


def run(url: str, value: str) -> str:
    command = [sys.executable, "-c", CODE, url, value]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_a_later_process_finds_what_an_earlier_one_left(tmp_path: Path) -> None:
    url = f"file://{tmp_path}/store"
    assert run(url, "one") == "None True True"
    assert run(url, "two") == "one True True"
    celeriac.connect(url).destroy(force=True)
