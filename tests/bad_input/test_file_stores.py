"""file:// stores: what holds for them beside what holds for all, and what they refuse."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from arena_header import patch

import celeriac

NAMES = {"arena", "owners.lock"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "a store"


@pytest.fixture
def url(path: Path) -> Iterator[str]:
    url = "file://" + str(path).replace(" ", "%20")
    yield url
    if (path / "arena").exists():
        celeriac.connect(url).destroy(force=True)


def run(code: str, *arguments: str) -> str:
    head = "import sys, celeriac\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_processes_share_it_and_it_outlives_them(path: Path, url: str) -> None:
    set_one = "celeriac.connect(sys.argv[1]).cache().set('k', [1, 'two'], None)"
    run(set_one, url + "?memory=8M")
    assert {entry.name for entry in path.iterdir()} == NAMES
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "arena").stat().st_mode & 0o777 == 0o600
    with celeriac.connect(url) as store:
        assert store.path == str(path)
        assert store.url == url
        assert store.cache().get("k") == [1, "two"]
        assert store.cache().stats().bytes_limit == 8 << 20
        run("celeriac.connect(sys.argv[1]).table('t').set('n', 5)", url)
        assert store.table("t").get("n") == 5
        assert pickle.loads(pickle.dumps(store)).cache().get("k") == [1, "two"]
        assert celeriac.connect(f"file://{path.parent}/./a%20store/").cache().get("k")


def test_a_name_in_shm_is_another_store(url: str, tmp_path: Path) -> None:
    celeriac.connect(url).cache().set("k", 1)
    with pytest.raises(celeriac.StoreNotFound):
        celeriac.connect("shm://a_store?create=no")


def test_destroy_leaves_the_directory_and_what_is_not_the_stores(path: Path, url: str) -> None:
    path.mkdir(mode=0o700)
    store = celeriac.connect(url)
    store.cache().set("k", 1)
    store.table("t").set("k", 1)
    (path / "notes").write_text("of the user")
    store.destroy()
    assert [entry.name for entry in path.iterdir()] == ["notes"]
    (path / "notes").unlink()
    assert celeriac.connect(url).cache().get("k") is None


def test_no_store_where_none_is_to_be_made(path: Path, url: str) -> None:
    for absent in (True, False):
        with pytest.raises(celeriac.StoreNotFound, match=f"no store at {path}: start the app"):
            celeriac.connect(url, create=False)
        assert path.exists() is not absent
        path.mkdir(mode=0o700, exist_ok=True)
    assert list(path.iterdir()) == []


def test_a_directory_with_files_of_others(path: Path, url: str) -> None:
    path.mkdir(mode=0o700)
    (path / "settings.py").touch()
    with pytest.raises(celeriac.ConfigurationError, match=r"files that are no store's \(settings"):
        celeriac.connect(url)
    assert [entry.name for entry in path.iterdir()] == ["settings.py"]


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707])
def test_a_directory_that_is_open_to_others(path: Path, url: str, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(celeriac.ConfigurationError, match=r"others could.*chmod it to 0700"):
        celeriac.connect(url)
    assert list(path.iterdir()) == []
    path.chmod(0o700)
    assert celeriac.connect(url).cache().add("k", 1)


def test_what_is_no_directory(path: Path, url: str) -> None:
    path.touch()
    with pytest.raises(celeriac.ConfigurationError, match="is not a directory"):
        celeriac.connect(url)
    path.unlink()
    path.symlink_to(path.parent)
    with pytest.raises(celeriac.ConfigurationError, match="a symbolic link"):
        celeriac.connect(url)
    path.unlink()


def test_after_a_reboot_it_begins_anew(path: Path, url: str) -> None:
    for _ in range(3):
        with celeriac.connect(url) as store:
            assert store.cache().get("k") is None
            store.cache().set("k", "v", None)
        with celeriac.connect(url) as store:
            assert store.cache().get("k") == "v"
        patch(path / "arena", 40, lambda value: value ^ 1)  # the boot's id
        before = (path / "arena").read_bytes()
        with pytest.raises(celeriac.StoreNotFound):
            celeriac.connect(url, create=False)
        assert (path / "arena").read_bytes() == before, "who only looks removes nothing"


def test_who_come_together_after_a_reboot_share_one(path: Path, url: str) -> None:
    with celeriac.connect(url) as store:
        store.cache().set("k", "old", None)
    patch(path / "arena", 40, lambda value: value ^ 1)
    code = (
        "with celeriac.connect(sys.argv[1]) as store:\n"
        "    store.table('t').add('n', 0)\n"
        "    store.table('t').incr('n')\n"
        "    sys.stdin.read(1)\n"
        "    print(store.table('t').get('n'), store.cache().get('k'))\n"
    )
    with ThreadPoolExecutor(4) as pool:
        command = [sys.executable, "-c", "import sys, celeriac\n" + code, url]
        started = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        late = time.monotonic() + 60
        seen = 0
        while seen < 4 and time.monotonic() < late:
            # nobody may have made it yet
            with suppress(celeriac.StoreNotFound), celeriac.connect(url, create=False) as store:
                seen = store.table("t").get("n", 0)
        said = list(pool.map(lambda one: one.communicate("x", timeout=60)[0].strip(), started))
    assert said == ["4 None"] * 4


@pytest.mark.parametrize(
    ("offset", "value", "error"),
    [(0, 1, celeriac.StoreCorrupt), (16, 1, celeriac.VersionMismatch)],
)
def test_what_is_not_of_an_earlier_boot_stays_an_error(
    path: Path, url: str, offset: int, value: int, error: type[Exception]
) -> None:
    celeriac.connect(url).close()
    patch(path / "arena", offset, lambda byte: byte ^ value)
    before = (path / "arena").read_bytes()
    with pytest.raises(error):
        celeriac.connect(url)
    assert (path / "arena").read_bytes() == before
    (path / "arena").unlink()


def test_the_command_line(url: str) -> None:
    celeriac.connect(url).cache("shown").set("k", 1)
    done = subprocess.run(
        [sys.executable, "-m", "celeriac", "stats", url], capture_output=True, text=True, check=True
    )
    assert "shown" in done.stdout


def test_a_full_disk_is_an_error(url: str) -> None:
    have = os.statvfs("/").f_bavail * os.statvfs("/").f_frsize
    with pytest.raises(celeriac.NotEnoughMemory, match="lower memory="):
        celeriac.connect(url, memory=4 * have + (1 << 50))
