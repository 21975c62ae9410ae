"""Less memory, address space, descriptors or slots than wanted: named, and nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import celeriac

Python = Callable[..., "subprocess.Popen[str]"]
CURE = "lower memory=, or enlarge the file system"


# Shadow memory takes terabytes of addresses, and reports need handlers.
SANITIZED = "libasan" in Path("/proc/self/maps").read_text()


def says(process: subprocess.Popen[str]) -> str:
    """What a process printed, when it ended well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


# ------------------------------------------------------------------ more than there is


def test_more_than_the_file_system_has(root: Path, unchanged: Callable[[], object]) -> None:
    space = os.statvfs(root)
    have = space.f_bavail * space.f_frsize
    for memory in (have + (64 << 20), "100T", 2**63, 2**70, "9" * 30):
        with pytest.raises(celeriac.NotEnoughMemory, match=r"need \d+ MiB, have \d+ MiB") as caught:
            celeriac.connect("shm://app", memory=memory)
        assert CURE in str(caught.value)
        assert "memory=" in str(caught.value)
        assert unchanged() == []


def test_more_than_there_is_for_a_store_that_is_there(
    root: Path, closed: Path, unchanged: Callable[[], object]
) -> None:
    before = unchanged()
    with pytest.raises(celeriac.NotEnoughMemory, match=r"need \d+ MiB, have \d+ MiB"):
        celeriac.connect("shm://app", memory="100T")
    assert unchanged() == before
    with celeriac.connect("shm://app") as store:
        with pytest.raises(celeriac.NotEnoughMemory, match=r"need \d+ MiB, have \d+ MiB"):
            celeriac.connect("shm://app", memory="100T")
        assert store.cache().get("k") == "v"
        assert store.stats()["memory_limit"] == 8 << 20


def test_the_ceiling_rises_and_does_not_fall(root: Path) -> None:
    with celeriac.connect("shm://app", memory="4M") as store:
        assert store.stats()["memory_limit"] == 4 << 20
        with celeriac.connect("shm://app", memory="8M"):
            assert store.stats()["memory_limit"] == 8 << 20
        for smaller in ({"memory": "2M"}, {}):
            with celeriac.connect("shm://app", **smaller):
                assert store.stats()["memory_limit"] == 8 << 20
        store.table("t").set("large", b"x" * (5 << 20))


# ------------------------------------------------------------------ a small file system

SMALL = """
import ctypes
root = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
if libc.mount(b"none", root.encode(), b"tmpfs", 0, b"size=16m"):
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
os.environ["CELERIAC_SHM_DIR"] = root
def ballast(leave):
    "Fills the file system but for some bytes."
    space = os.statvfs(root)
    with open(root + "/ballast", "wb") as f:
        os.posix_fallocate(f.fileno(), 0, space.f_bavail * space.f_frsize - leave)
def tree():
    return sorted(name for _, d, f in os.walk(root) for name in d + f)
"""


@pytest.fixture
def small(root: Path, python: Python) -> Callable[[str], str]:
    """Runs Python code where CELERIAC_SHM_DIR is a file system of 16 MB; what it printed."""
    wrapper = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "-r")
    if shutil.which("unshare") is None:
        pytest.skip("no unshare: install util-linux")
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mount namespaces here: run as root, or allow user namespaces")
    return lambda code: says(python(SMALL + code, str(root), wrapper=wrapper))


def test_too_small_for_what_was_asked(small: Callable[[str], str]) -> None:
    said = small("""
for options in ({"memory": "64M"}, {}):
    try:
        celeriac.connect("shm://app", **options)
    except celeriac.NotEnoughMemory as error:
        print(error)
    assert tree() == [], tree()
with celeriac.connect("shm://app?memory=12M") as store:
    store.cache().set("k", 1)
    assert store.cache().get("k") == 1
""")
    asked, default = said.splitlines()
    assert "memory=64 MiB" in asked
    assert "need 64 MiB, have 1" in asked
    assert "need 256 MiB, have 1" in default
    assert CURE in asked


def test_a_cache_evicts_when_the_file_system_is_full(small: Callable[[str], str]) -> None:
    small("""
store = celeriac.connect("shm://app?memory=14M")
cache, table = store.cache(ttl=None), store.table("t")
for i in range(20):
    table.set(f"t{i}", b"%04d" % i * 1000)
ballast(leave=1 << 20)
for i in range(400):
    cache.set(f"k{i}", b"%06d" % i * 2000)
    assert cache.get(f"k{i}") == b"%06d" % i * 2000
assert store.stats()["memory_allocated"] < 8 << 20, store.stats()
assert cache.stats().evictions > 100, cache.stats()
assert all(v == k[1:].zfill(6).encode() * 2000
           for k, v in cache.get_many(f"k{i}" for i in range(400)).items())
assert dict(table.items()) == {f"t{i}": b"%04d" % i * 1000 for i in range(20)}
os.unlink(sys.argv[1] + "/ballast")
before = len(cache)
for i in range(1000):
    cache.set(f"k{i}", b"%06d" % i * 2000)
assert len(cache) > before + 300, (before, len(cache))
""")


def test_a_queue_is_full_when_the_file_system_is(small: Callable[[str], str]) -> None:
    said = small("""
store = celeriac.connect("shm://app?memory=14M")
queue, table = store.queue("q"), store.table("t")
table.set("k", "v")
put = []
def fill():
    for _ in range(2000):
        body = b"%06d" % len(put) * 2000
        try:
            queue.put(body)
        except celeriac.QueueFull as error:
            return str(error)
        put.append(body)
ballast(leave=1 << 20)
print(fill())
try:
    table.set("large", b"x" * 100_000)
except celeriac.NotEnoughMemory as error:
    print(error)
assert (table.get("k"), "large" in table) == ("v", False)
for _ in range(10):
    message = queue.get(0)
    assert message.body == put.pop(0)
    message.ack()
queue.put(b"again"); put.append(b"again")
os.unlink(sys.argv[1] + "/ballast")
before = len(put)
print(fill())
assert len(put) > before + 300, (before, len(put))
for body in put:
    message = queue.get(0)
    assert message.body == body
    message.ack()
assert queue.counts()[:4] == (0, 0, 0, 0)
""")
    queue, table, ceiling = said.splitlines()
    assert "file system has" in queue
    assert CURE in queue
    assert "file system has" in table
    assert "raise memory=" in ceiling


def test_no_room_for_the_first_page(small: Callable[[str], str]) -> None:
    small("""
ballast(leave=100_000)
for _ in range(3):
    try:
        celeriac.connect("shm://app?memory=2M")
    except celeriac.NotEnoughMemory as error:
        assert "have 0" in str(error), error
    else:
        raise SystemExit("opened")
assert tree() == ["ballast"], tree()
""")


def test_no_room_for_wake_ups(small: Callable[[str], str]) -> None:
    """Files that are made later: out of inodes, it is an error, and the store goes on."""
    small("""
if libc.mount(b"none", root.encode(), b"tmpfs", 32, b"nr_inodes=6"):
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
store = celeriac.connect("shm://app?memory=4M")
n = 0
while True:
    try:
        open(f"{root}/{n}", "x").close()
        n += 1
    except OSError:
        break
try:
    store.queue("q").fileno()
except celeriac.CeleriacError as error:
    assert "wake" in str(error), error
else:
    raise SystemExit("no error")
store.queue("q").put(b"x")
assert store.queue("q").get(1).body == b"x"
""")


# ------------------------------------------------------------------ limits of the process


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer takes all address space")
def test_little_address_space(root: Path, python: Python) -> None:
    says(
        python("""
import resource
def used():
    return int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used() + (300 << 20),) * 2)
with celeriac.connect("shm://app?memory=64M") as store:
    store.cache().set("k", b"x" * (20 << 20))
    assert len(store.cache().get("k")) == 20 << 20
try:
    celeriac.connect("shm://large?memory=1G")
except celeriac.NotEnoughMemory as error:
    assert "address space" in str(error) and "memory=" in str(error), error
else:
    raise SystemExit("opened")
""")
    )


def test_small_files_only(root: Path, python: Python) -> None:
    says(
        python("""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    celeriac.connect("shm://app?memory=8M")
except celeriac.NotEnoughMemory as error:
    assert "memory=" in str(error), error
else:
    raise SystemExit("opened")
""")
    )


@pytest.mark.skipif(SANITIZED, reason="the sanitizers look at memory through pipes of their own")
def test_no_descriptors_left(root: Path, python: Python) -> None:
    says(
        python("""
import resource, threading
store = celeriac.connect("shm://app?memory=8M")
queue, waiter = store.queue("q"), store.waiter()
queue.put(b"x")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.dup(0))
except OSError:
    pass
for call in (lambda: celeriac.connect("shm://other"), waiter.fileno, queue.fileno):
    try:
        call()
    except celeriac.CeleriacError:
        continue
    raise SystemExit("no error")
message = queue.get(0)
message.nack()
message = queue.get(1)
assert message.body == b"x"
# No watch on deaths can be had now: who waits looks by the clock.
pid = os.fork()
if pid == 0:
    os.closerange(held[0], held[-1] + 1)
    queue.put(b"from the child")
    assert queue.get(0)
    os.kill(os.getpid(), 9)
os.waitpid(pid, 0)
assert queue.get(30).body == b"from the child"
for fd in held:
    os.close(fd)
assert waiter.fileno() > 0
celeriac.connect("shm://other").close()
""")
    )


# ------------------------------------------------------------------ slots for processes

FILL = """
import fcntl, struct
# As 1,024 living processes would: the byte of every owner slot is locked.
fd = os.open(sys.argv[1] + "/owners.lock", os.O_RDWR)
fcntl.fcntl(fd, 37, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 16, 1024, 0))  # F_OFD_SETLK
print("full", flush=True)
sys.stdin.readline()
"""


def test_one_process_more_than_there_are_slots(closed: Path, python: Python) -> None:
    filler = python(FILL, str(closed))
    assert filler.stdout is not None
    assert filler.stdin is not None
    assert filler.stdout.readline() == "full\n"
    store = celeriac.connect("shm://app")
    calls: list[Callable[[], object]] = [
        store.cache,
        lambda: store.queue("q"),
        store.stats,
        store.waiter,
    ]
    for call in calls:
        with pytest.raises(celeriac.NotEnoughMemory, match=r"1024 living.*need one.*have"):
            call()
    filler.stdin.write("\n")
    filler.stdin.flush()
    assert filler.wait(30) == 0
    assert store.cache().get("k") == "v"
    store.close()


def test_slots_of_the_dead_are_no_hindrance(closed: Path, python: Python) -> None:
    """Records of processes that were killed: who comes next cleans up and attaches."""
    says(
        python("""
store = celeriac.connect("shm://app")
store.queue("q").put_many([b"x"] * 1030)
pids = []
for _ in range(60):
    pid = os.fork()
    if pid == 0:
        store.queue("q").get(0)
        os.kill(os.getpid(), 9)
    pids.append(pid)
for pid in pids:
    assert os.waitpid(pid, 0)[1] == 9
    assert store.stats()["owners"] <= 60
""")
    )
    with celeriac.connect("shm://app") as store:
        store.recover()
        assert store.queue("q").counts()[:3] == (1030, 0, 0)
        assert store.stats()["owners"] == 1


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer has signal handlers of its own")
def test_signals_are_left_alone(root: Path, python: Python) -> None:
    """No handler of ours, and none of the process's replaced."""
    says(
        python("""
import signal
before = [signal.getsignal(n) for n in range(1, 32)]
store = celeriac.connect("shm://app?memory=8M")
store.queue("q").get(0.01)
store.waiter().fileno()
assert [signal.getsignal(n) for n in range(1, 32)] == before
text = open("/proc/self/status").read()
caught = int(text.partition("SigCgt:")[2].split()[0], 16)
assert caught % (1 << 31) == 1 << signal.SIGINT - 1, hex(caught)
""")
    )
    assert signal.getsignal(signal.SIGSEGV) is not None
