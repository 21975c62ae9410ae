"""Directories and files that aren't as we leave them: refused, named, and not touched."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from arena_header import HEADER, patch

import celeriac

Look = Callable[[], object]
SOMEBODY = 54321


def refused(
    said: str,
    look: Look,
    error: type[Exception] = celeriac.ConfigurationError,
    **options: object,
) -> None:
    """connect() raises, whether it may make stores or not, and changes nothing."""
    before = look()
    for create in (True, False):
        with pytest.raises(error, match=said):
            celeriac.connect("shm://app", create=create, **options)
        assert look() == before


def place(closed: Path, what: str) -> Path:
    return {"user": closed.parent, "store": closed}.get(what, closed / what)


PLACES = ["user", "store", "arena", "owners.lock"]


# ------------------------------------------------------------------ whose they are


@pytest.mark.parametrize("what", PLACES)
def test_of_another_user(closed: Path, unchanged: Look, needs_root: None, what: str) -> None:
    os.chown(place(closed, what), SOMEBODY, -1)
    refused(f"belongs to user {SOMEBODY}, not to this process's user {os.geteuid()}", unchanged)


@pytest.mark.parametrize("what", PLACES)
@pytest.mark.parametrize("mode", [0o020, 0o002, 0o040, 0o004])
def test_open_to_others(closed: Path, unchanged: Look, what: str, mode: int) -> None:
    path = place(closed, what)
    path.chmod(path.stat().st_mode | mode)
    advice = (
        "name a directory.*chmod it to 0700$" if path.is_dir() else "chmod it to 0600 or remove it"
    )
    refused(f"has mode 0.*others could write or read it: {advice}", unchanged)


def test_files_are_open_to_the_group_when_asked(root: Path, ours: Path) -> None:
    old = os.umask(0o077)
    try:
        with celeriac.connect("shm://app", mode=0o660) as store:
            store.cache().set("k", 1)
            modes = {p.name: p.stat().st_mode & 0o777 for p in (ours / "app").iterdir()}
    finally:
        os.umask(old)
    assert modes["arena"] == modes["owners.lock"] == 0o660
    assert (ours / "app").stat().st_mode & 0o777 == 0o770
    with celeriac.connect("shm://app", mode=0o660) as store:
        assert store.cache().get("k") == 1
    with pytest.raises(celeriac.ConfigurationError, match="has mode"):
        celeriac.connect("shm://app")


def test_another_mode_than_the_store_was_made_with(closed: Path, unchanged: Look) -> None:
    refused("mode=0660, but the store at .* was made with 0600", unchanged, mode=0o660, memory="1G")
    with celeriac.connect("shm://app") as store:
        with pytest.raises(celeriac.ConfigurationError, match="was made with 0600"):
            celeriac.connect("shm://app", mode=0o660)
        assert store.cache().get("none") is None  # that handle is open yet


def test_what_we_make_is_ours_alone(closed: Path) -> None:
    old = os.umask(0)
    try:
        celeriac.connect("shm://second").close()
    finally:
        os.umask(old)
    for directory in (closed.parent, closed, closed.parent / "second"):
        assert directory.stat().st_mode & 0o777 == 0o700
        assert all(p.stat().st_mode & 0o777 == 0o600 for p in directory.iterdir() if p.is_file())


def test_a_user_without_a_place(root: Path, needs_root: None) -> None:
    """In a directory where another user may not write."""
    root.chmod(0o755)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgid(SOMEBODY)
            os.setuid(SOMEBODY)
            with pytest.raises(celeriac.ConfigurationError, match="Permission denied"):
                celeriac.connect("shm://app")
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert list(root.iterdir()) == []


def test_no_such_root(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("CELERIAC_SHM_DIR", str(root / "nowhere"))
    with pytest.raises(celeriac.ConfigurationError, match=r"can't make directory.*nowhere"):
        celeriac.connect("shm://app")
    with pytest.raises(celeriac.StoreNotFound):
        celeriac.connect("shm://app", create=False)


def test_root_that_depends_on_the_directory(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.chdir(root)
    monkeypatch.setenv("CELERIAC_SHM_DIR", "stores")
    (root / "stores").mkdir()
    with pytest.raises(celeriac.ConfigurationError, match="'stores' depends on where a process"):
        celeriac.connect("shm://app")
    assert list((root / "stores").iterdir()) == []


# ------------------------------------------------------------------ what they are


@pytest.mark.parametrize("what", PLACES)
def test_symbolic_link(closed: Path, unchanged: Look, what: str) -> None:
    path = place(closed, what)
    target = path.rename(path.with_name("elsewhere"))
    path.symlink_to(target)
    refused("is a symbolic link, which celeriac never follows", unchanged)


@pytest.mark.parametrize("what", PLACES)
def test_symbolic_link_to_nowhere(closed: Path, unchanged: Look, what: str) -> None:
    path = place(closed, what)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("nowhere")
    refused("is a symbolic link", unchanged)


@pytest.mark.parametrize("what", ["arena", "owners.lock"])
def test_hard_link(closed: Path, unchanged: Look, what: str) -> None:
    os.link(closed / what, closed / "second name")
    refused("second name", unchanged)


def make_fifo(path: Path) -> None:
    os.mkfifo(path, 0o600)


def make_directory(path: Path) -> None:
    path.mkdir(0o700)


def make_file(path: Path) -> None:
    path.touch(0o600)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(path))
    path.chmod(0o600)


@pytest.mark.parametrize("make", [make_fifo, make_directory, make_socket])
@pytest.mark.parametrize("what", ["arena", "owners.lock"])
def test_something_else_in_place_of_a_file(
    closed: Path, unchanged: Look, what: str, make: Callable[[Path], None]
) -> None:
    path = closed / what
    path.rename(path.with_name("elsewhere"))
    make(path)
    refused(f"{what} is not a regular file", unchanged)


@pytest.mark.parametrize("make", [make_fifo, make_file, make_socket])
@pytest.mark.parametrize("what", ["user", "store"])
def test_something_else_in_place_of_a_directory(
    closed: Path, unchanged: Look, what: str, make: Callable[[Path], None]
) -> None:
    path = place(closed, what)
    path.rename(path.with_name("elsewhere"))
    make(path)
    refused("is not a directory", unchanged)


@pytest.mark.parametrize("make", [make_directory, make_file, lambda p: p.symlink_to("/dev/null")])
def test_something_else_in_place_of_a_wake_up(closed: Path, make: Callable[[Path], None]) -> None:
    """FIFOs are made anew by who needs them; what isn't one is an error, or is not written to."""
    for slot in range(3):
        make(closed / f"wake.{slot}")
    with celeriac.connect("shm://app") as store:
        with pytest.raises(celeriac.CeleriacError, match=r"wake\.\d"):
            store.queue("q").fileno()
        store.queue("q").put(b"x")
        message = store.queue("q").get(5)
        assert message is not None
        message.ack()


# ------------------------------------------------------------------ what is in them


@pytest.mark.parametrize(
    ("offset", "size"),
    [(8, 4), (16, 8), (32, 8), (88, 8), (96, 4)],
    ids=["major", "fingerprint", "incompatible feature", "base size", "page size"],
)
def test_another_version(closed: Path, unchanged: Look, offset: int, size: int) -> None:
    patch(closed / "arena", offset, lambda value: value ^ 2, size)
    said = r"has layout \d+\.\d+ \(fingerprint .*this process has \d+\.\d+ \(fingerprint .*remove"
    refused(said, unchanged, celeriac.VersionMismatch)


@pytest.mark.parametrize(
    ("offset", "size"), [(12, 4), (24, 8)], ids=["minor", "compatible feature"]
)
def test_another_version_that_fits(closed: Path, offset: int, size: int) -> None:
    patch(closed / "arena", offset, lambda value: value ^ 2, size)
    with celeriac.connect("shm://app") as store:
        assert store.cache().get("k") == "v"


def test_from_before_the_last_boot(closed: Path, unchanged: Look) -> None:
    patch(closed / "arena", 40, lambda value: value ^ 1)
    refused("before the host's last boot.*remove", unchanged, celeriac.StoreCorrupt)


@pytest.mark.parametrize("offset", [0, 7, 20, 50, 60, 75, 85, 100, 103])
def test_damaged_header(closed: Path, unchanged: Look, offset: int) -> None:
    data = bytearray((closed / "arena").read_bytes())
    data[offset] ^= 0x10
    (closed / "arena").write_bytes(data)
    refused("magic|checksum", unchanged, celeriac.StoreCorrupt)


@pytest.mark.parametrize("size", [0, 1, 8, 100, 104, 4096, 100_000, -4096, -1])
def test_truncated(closed: Path, unchanged: Look, size: int) -> None:
    arena = closed / "arena"
    os.truncate(arena, size if size >= 0 else arena.stat().st_size + size)
    refused(
        "truncated.*stop its processes and remove the directory", unchanged, celeriac.StoreCorrupt
    )


@pytest.mark.parametrize(
    "content", [b"\0", b"\xff" * 8, b"#!/bin/sh\n", bytes(range(256))], ids=range(4)
)
@pytest.mark.parametrize("size", [16, 5000, 3 << 20])
def test_not_ours(closed: Path, unchanged: Look, content: bytes, size: int) -> None:
    (closed / "arena").write_bytes((content * size)[:size])
    refused("arena", unchanged, celeriac.StoreCorrupt)


@pytest.mark.parametrize("field", [HEADER, HEADER + 8], ids=["capacity", "size"])
@pytest.mark.parametrize("value", [0, 1, 4096, 1 << 40, (1 << 64) - 1])
def test_sizes_that_can_not_be(closed: Path, unchanged: Look, field: int, value: int) -> None:
    data = bytearray((closed / "arena").read_bytes())
    data[field : field + 8] = value.to_bytes(8, "little")
    (closed / "arena").write_bytes(data)
    before = unchanged()
    try:
        store = celeriac.connect("shm://app")
    except celeriac.StoreCorrupt:
        assert unchanged() == before
        return
    with store:
        for i in range(50):
            store.cache().set(f"k{i}", b"x" * 10_000)
    assert field == HEADER  # the ceiling may be anything, the size may not
    assert value > 4096


def test_what_to_do_helps(closed: Path) -> None:
    """The errors say: remove the directory. Then there is an empty store."""
    (closed / "arena").write_bytes(b"not ours")
    with pytest.raises(celeriac.StoreCorrupt, match=f"remove the directory {closed}|remove"):
        celeriac.connect("shm://app")
    for path in closed.iterdir():
        path.unlink()
    closed.rmdir()
    with celeriac.connect("shm://app") as store:
        assert store.cache().get("k") is None


@pytest.mark.parametrize("content", [b"", b"x" * 10_000])
def test_the_lock_file_needs_no_content(closed: Path, content: bytes) -> None:
    (closed / "owners.lock").write_bytes(content)
    with celeriac.connect("shm://app") as store:
        assert store.cache().get("k") == "v"


def test_other_files_in_the_directory_are_let_be(closed: Path) -> None:
    (closed / "notes").write_text("mine")
    (closed / "folder").mkdir()
    with celeriac.connect("shm://app") as store:
        assert store.cache().get("k") == "v"
