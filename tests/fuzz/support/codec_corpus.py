"""The corpus of the codec's fuzzer: inputs that together reach all that it ever reached.

In the tree it is one text, a line of Base64 each; the fuzzer wants a folder with a file each.

    python tests/fuzz/support/codec_corpus.py unpack FOLDER
    python tests/fuzz/support/codec_corpus.py pack FOLDER
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

FILE = Path(__file__).parents[1] / "corpus.txt"


def load() -> list[bytes]:
    """All inputs, the short ones first."""
    return [base64.b64decode(line, validate=True) for line in FILE.read_text().splitlines()]


def unpack(folder: Path) -> None:
    """Writes a file for each."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(load()):
        (folder / f"{number:04}").write_bytes(data)


def pack(folder: Path) -> None:
    """Puts the folder's files in the place of the corpus."""
    found = sorted({path.read_bytes() for path in folder.iterdir()}, key=lambda d: (len(d), d))
    FILE.write_text("".join(base64.b64encode(data).decode() + "\n" for data in found))


if __name__ == "__main__":
    {"unpack": unpack, "pack": pack}[sys.argv[1]](Path(sys.argv[2]))
