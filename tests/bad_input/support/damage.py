"""Opens and uses a store whose file was damaged at random; run as a program, one child per seed.

    damage.py ROOT SEED-COUNT FIRST-SEED

Prints a line for each seed whose child died of a signal, hung, or met an error that isn't
celeriac's; ends with 1 if there was one. Each child damages a copy of a used store while nobody has
it open, in one of several ways, and then does a bit of everything with it.
"""

from __future__ import annotations

import faulthandler
import os
import random
import shutil
import signal
import sys
import traceback
from pathlib import Path

import celeriac

SECONDS = 10  # for one child; most need 50 ms


def furnish(name: str) -> Path:
    """A store with something in every corner, left by a process that was killed."""
    pid = os.fork()
    if pid == 0:
        store = celeriac.connect(f"shm://{name}?memory=8M")
        cache, table, queue = store.cache(), store.table("t"), store.queue("q")
        for i in range(300):
            cache.set(f"k{i}", b"%d" % i * (1 + i), ttl=None if i % 3 else 1000)
            table.set(f"t{i}", i)
            queue.put(b"%d" % i * (1 + i), priority=i % 3, delay=(i % 5 == 0) * 1000)
            store.queue(f"q{i % 20}").put("x", headers={"h": i})
        cache.delete_many(f"k{i}" for i in range(0, 300, 7))
        held = queue.get_many(20)
        for message in held[::2]:
            message.ack()
        waiter = store.waiter()
        waiter.watch(queue)
        waiter.arm()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    path = Path(os.environ["CELERIAC_SHM_DIR"]) / f"celeriac-{os.geteuid()}" / name
    assert (path / "arena").exists()
    return path


def damage(arena: Path, chance: random.Random) -> str:
    """Changes bytes of the file; how, for the report."""
    size = arena.stat().st_size
    words = [w * 8 for w in range(size // 8)]
    data = bytearray(arena.read_bytes())
    used = [at for at in words if data[at : at + 8] != bytes(8)]
    how = chance.choice(["bits", "words", "used bits", "used words", "runs", "swap", "head"])
    for _ in range(chance.choice([1, 3, 10, 100, 1000])):
        at = chance.choice(used if how.startswith("used") or how == "swap" else words)
        if how == "head":  # behind what the checksum covers
            at = chance.randrange(13, 32) * 8
        if how.endswith("bits"):
            data[at + chance.randrange(8)] ^= 1 << chance.randrange(8)
        elif how == "swap":
            other = chance.choice(used)
            data[at : at + 8], data[other : other + 8] = data[other : other + 8], data[at : at + 8]
        elif how == "runs":
            data[at : at + 64] = chance.randbytes(len(data[at : at + 64]))
        else:
            value = chance.choice(
                [0, 1, 2**64 - 1, 2**63, chance.getrandbits(64), size, size // 16]
            )
            data[at : at + 8] = value.to_bytes(8, "little")
    arena.write_bytes(data)
    return how


def tried(call: object) -> None:
    try:
        call()  # type: ignore[operator]
    except celeriac.CeleriacError:
        pass
    except (TypeError, ValueError, KeyError):  # a counter that is none any more, a missing key
        pass


def use(name: str) -> None:
    """A bit of everything; celeriac's errors are right answers."""
    store = celeriac.connect(f"shm://{name}")
    tried(store.recover)
    cache, table = store.cache(), store.table("t")
    for i in range(0, 300, 3):
        tried(lambda i=i: cache.get(f"k{i}"))
        tried(lambda i=i: cache.set(f"k{i}", b"new" * i))
        tried(lambda i=i: cache.ttl(f"k{i + 1}"))
        tried(lambda i=i: cache.delete(f"k{i + 2}"))
        tried(lambda i=i: table.incr(f"t{i}"))
        tried(lambda i=i: table.get_versioned(f"t{i}"))
    for call in (table.items, cache.stats, lambda: len(cache), lambda: cache.cull(50), cache.keys):
        tried(call)
    tried(lambda: cache.set("large", b"x" * 3_000_000))
    for name in ("q", "q3", "q7", "new"):
        queue = None

        def work(name: str = name) -> None:
            queue = store.queue(name)
            for call in (queue.counts, queue.ready, queue.delayed, queue.dead):
                tried(call)
            for i in range(60):
                tried(lambda: queue.put(b"more", delay=i % 2 * 0.001))  # noqa: B023
                message = queue.get(0)
                if message is not None:
                    tried(lambda: message.headers)  # noqa: B023
                    tried(message.nack if i % 3 == 0 else message.ack)
            queue.get(0.01)

        tried(work)
        del queue
    for call in (store.queues, store.owners, store.stats, cache.clear, table.clear):
        tried(call)
    tried(lambda: store.queue("q").purge())
    tried(lambda: store.queue("q3").delete())
    tried(store.recover)
    store.close()


def one(source: Path, seed: int) -> str:
    """Damages a copy and uses it, in a child; what went wrong, or nothing."""
    name = f"damaged-{seed}"
    path = source.parent / name
    shutil.copytree(source, path, ignore=lambda _, names: [n for n in names if n != "arena"])
    how = damage(path / "arena", random.Random(seed))
    pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS)
        faulthandler.enable()
        faulthandler.dump_traceback_later(SECONDS - 1)
        status = 1
        try:
            use(name)
            status = 0
        except celeriac.CeleriacError:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    shutil.rmtree(path)
    if status == 0:
        return ""
    died = f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"
    return f"seed {seed} ({how}): {died}"


def main() -> int:
    root, count, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.environ["CELERIAC_SHM_DIR"] = root
    source = furnish("whole")
    failures = [line for seed in range(first, first + count) if (line := one(source, seed))]
    for line in failures:
        print(line, flush=True)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
