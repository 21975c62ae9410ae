"""Kills a process at single instructions of an operation, and looks at what is left.

    python tests/crash/single_step.py --states 300 --seed 1      a sample of all operations
    python tests/crash/single_step.py --operation put --all      every instruction of one

A victim stops right before the operation; its tracer lets it make k instructions (ptrace) and kills
it there. Then another process recovers and judges, as for the crash points. The instructions of the
interpreter and of the bindings around the core are stepped through too.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import signal
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent / "support"))

from aftermath import judge, picture_of
from victims import Allowed, fill

import celeriac

PTRACE_TRACEME, PTRACE_CONT, PTRACE_SINGLESTEP = 0, 7, 9
LONGEST: Final = 2_000_000  # instructions
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class PtraceRefused(RuntimeError):
    """This machine or container doesn't allow ptrace."""


Prepared = tuple[dict[str, Any], Callable[[], Any]]


def _before(store: celeriac.Store) -> None:
    """What every store holds before: lanes, a table of the index and some blocks are there."""
    queue, cache = store.queue("q"), store.cache("c")
    for name in ("first", "second"):
        queue.put(fill(name, 40))
    cache.set("k", "old")
    cache.set("n", 5)


STATE: Final[list[dict[str, Any]]] = [
    {"put": "first"},
    {"done": True},
    {"put": "second"},
    {"done": True},
    {"set": ["c", "k", "old"]},
    {"done": True},
    {"set": ["c", "n", 5]},
    {"done": True},
]


def _put(store: celeriac.Store) -> Prepared:
    core, body = store.queue("q")._core, fill("new", 100).encode()
    return {"put": "new"}, lambda: core.put(body, b"", 0, 0.0, None)


def _put_delayed(store: celeriac.Store) -> Prepared:
    core, body = store.queue("q")._core, fill("late", 100).encode()
    return {"put": "late"}, lambda: core.put(body, b"", 0, 0.002, None)


def _get(store: celeriac.Store) -> Prepared:
    core = store.queue("q")._core
    return {}, lambda: core.get(0)


def _ack(store: celeriac.Store) -> Prepared:
    message = store.queue("q").get(0)
    assert message is not None
    return {"ack": "first"}, message._core.ack


def _nack(store: celeriac.Store) -> Prepared:
    message = store.queue("q").get(0)
    assert message is not None
    return {}, message.nack


def _set(store: celeriac.Store) -> Prepared:
    core = store.cache("c")._core
    return {"set": ["c", "k", "new"]}, lambda: core.set("k", "new", None)


def _set_large(store: celeriac.Store) -> Prepared:
    core, value = store.cache("c")._core, "large" * 1000  # has a segment to itself
    return {"set": ["c", "k", value]}, lambda: core.set("k", value, None)


def _add(store: celeriac.Store) -> Prepared:
    core = store.cache("c")._core
    return {"set": ["c", "added", "new"]}, lambda: core.add("added", "new", 60.0)


def _increment(store: celeriac.Store) -> Prepared:
    core = store.cache("c")._core
    return {"set": ["c", "n", 6]}, lambda: core.increment("n", 1)


def _touch(store: celeriac.Store) -> Prepared:
    core = store.cache("c")._core
    return {}, lambda: core.touch("k", 60.0)


def _clear(store: celeriac.Store) -> Prepared:
    return {"clear": "c"}, store.cache("c")._core.clear


def _delete(store: celeriac.Store) -> Prepared:
    core = store.cache("c")._core
    return {"set": ["c", "k", None]}, lambda: core.delete("k")


OPERATIONS: Final[dict[str, Callable[[celeriac.Store], Prepared]]] = {
    "put": _put,
    "put delayed": _put_delayed,
    "get": _get,
    "ack": _ack,
    "nack": _nack,
    "set": _set,
    "set large": _set_large,
    "add": _add,
    "increment": _increment,
    "touch": _touch,
    "clear": _clear,
    "delete": _delete,
}


def _victim(url: str, operation: str, into: int) -> None:
    store = celeriac.connect(url)
    change, call = OPERATIONS[operation](store)
    os.write(into, json.dumps(change).encode() + b"\n")
    if _libc.ptrace(PTRACE_TRACEME, 0, None, None) != 0:
        os._exit(99)
    os.kill(os.getpid(), signal.SIGSTOP)
    kept = call()
    os.write(into, b'{"done": true}\n')
    os.kill(os.getpid(), signal.SIGSTOP)
    del kept


def _step(pid: int, instructions: int) -> int:
    """Lets it make so many; how many it made before it stopped behind the operation."""
    for made in range(instructions):
        if _libc.ptrace(PTRACE_SINGLESTEP, pid, None, None) != 0:
            return made
        _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            raise AssertionError(f"the victim ended after {made} instructions: {status:#x}")
        if os.WSTOPSIG(status) == signal.SIGSTOP:
            return made
    return instructions


def die_after(url: str, operation: str, instructions: int) -> tuple[Allowed, int]:
    """What may be found after a death there; and how many instructions were made."""
    with celeriac.connect(url) as store:
        _before(store)
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _victim(url, operation, into)
        finally:
            os._exit(0)
    os.close(into)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 99:
        os.close(out)
        raise PtraceRefused("ptrace is refused here: allow it (docker run --cap-add=SYS_PTRACE)")
    if not os.WIFSTOPPED(status):
        raise AssertionError(f"the victim of {operation} ended early: {status:#x}")
    made = _step(pid, instructions)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(out, "rb") as pipe:
        told = [json.loads(line) for line in pipe.read().splitlines()]
    allowed = Allowed()
    allowed.take(STATE + told)
    return allowed, made


def trial(operation: str, instructions: int) -> int:
    """One death and its judgement; the instructions made."""
    url = f"shm://t-step-{uuid.uuid4().hex[:12]}?memory=4M"
    try:
        allowed, made = die_after(url, operation, instructions)
        with celeriac.connect(url) as store:
            try:
                judge(store, allowed)
                picture_of(store)
            except AssertionError as error:
                raise AssertionError(f"{operation}, {made} instructions: {error}") from error
        return made
    finally:
        celeriac.connect(url).destroy(force=True)


def sample(operation: str, states: int, seed: int) -> int:
    """Deaths at so many instructions, drawn evenly over the operation; its length."""
    length = trial(operation, LONGEST)
    draw = random.Random(f"{seed} {operation}")
    width = length / states
    for i in range(states):
        trial(operation, int(width * (i + draw.random())))
    return length


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, default=300, help="deaths, over all operations")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--operation", choices=sorted(OPERATIONS), action="append")
    parser.add_argument("--all", action="store_true", help="every instruction")
    options = parser.parse_args()
    chosen = options.operation or list(OPERATIONS)
    for operation in chosen:
        if options.all:
            length = trial(operation, LONGEST)
            for instructions in range(length):
                trial(operation, instructions)
            states = length
        else:
            states = max(1, options.states // len(chosen))
            length = sample(operation, states, options.seed)
        print(f"{operation:12} {length:7} instructions, {states} deaths: fine", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
