"""The extension exports one symbol, so that it can't meet those of other extensions."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

import pytest

SHT_DYNSYM = 11
SHN_UNDEF = 0
STB_LOCAL = 0


def exported_symbols(path: Path) -> list[str]:
    """The symbols that a 64-bit little-endian ELF file defines for others, by its .dynsym."""
    data = path.read_bytes()
    assert data[:6] == b"\x7fELF\x02\x01", f"{path} isn't a 64-bit little-endian ELF file"
    (sections_at,) = struct.unpack_from("<Q", data, 0x28)
    entry_size, count = struct.unpack_from("<HH", data, 0x3A)
    # name, type, flags, address, offset, size, link, info, alignment, entry size
    sections = [
        struct.unpack_from("<IIQQQQIIQQ", data, sections_at + i * entry_size) for i in range(count)
    ]
    names = []
    for section in sections:
        if section[1] != SHT_DYNSYM:
            continue
        strings = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], section[9]):
            name, info, _, index = struct.unpack_from("<IBBH", data, at)
            if index != SHN_UNDEF and info >> 4 != STB_LOCAL:
                end = data.index(b"\0", strings + name)
                names.append(data[strings + name : end].decode())
    return sorted(names)


def test_one_exported_symbol() -> None:
    spec = importlib.util.find_spec("celeriac")
    assert spec is not None, "celeriac isn't installed: pip install ."
    core = importlib.util.find_spec("celeriac._core")
    assert core is not None
    assert core.origin is not None
    assert exported_symbols(Path(core.origin)) == ["PyInit__core"]


def test_reader_sees_many_symbols() -> None:
    maps = Path("/proc/self/maps").read_text().split()
    libc = next((name for name in maps if "/libc.so" in name or "/ld-musl" in name), None)
    if libc is None:
        pytest.skip("this Python isn't linked with a shared libc: install one that is")
    names = exported_symbols(Path(libc))
    assert {"malloc", "getenv", "strlen"} <= {name.split("@")[0] for name in names}
