"""Writing the reports, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import DemoError
from .page import page


def write_json(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary as JSON. Raises `DemoError` when the file can't be written."""
    _write(path, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")


def write_page(path: Path, summary: dict[str, Any]) -> None:
    """Write the page. Raises `DemoError` when the file can't be written."""
    _write(path, page(summary))


def _write(path: Path, content: str) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        beside.write_text(content, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise DemoError(f"can't write {path}: {error}") from error
