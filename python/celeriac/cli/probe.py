"""`celeriac probe worker URL`: whether a Celery worker lives, for whoever restarts it if not.

A probe runs every few seconds, so it imports neither Celery nor Django, nor more of celeriac than
the core: who is attached to the store is asked of the kernel, which knows of a death at once, and
what a worker takes messages from stands in the store.
"""

from __future__ import annotations

import argparse
import os
import re
import struct
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from celeriac import _core
from celeriac.errors import ConfigurationError, StoreNotFound

from . import processes

FINE, FINDING = 0, 1
CONTROL = ".celery.pidbox"
"""What the queue is called, behind the worker's name, by which a worker gets its commands."""
PATIENCE = 1.0
"""Seconds in which who takes from a queue is seen to do so."""

_PLAIN = re.compile(r"shm://([A-Za-z0-9_][A-Za-z0-9_.-]{0,63})(?:\?memory=\d+[kKmMgG]?)?\Z")
_NO_OPTIONS: dict[str, Any] = {
    "create": False,
    "given": False,
    "max_length": 0,
    "max_deliveries": 0,
    "drop_oldest": False,
    "owner_bound": False,
    "dead_letter": "",
    "visibility": 0.0,
    "dedup_ttl": 0.0,
    "keep_done": (0, 0.0),
    "keep_failed": (0, 0.0),
}


_ABOUT = (
    "Exit code 0 when a Celery worker is attached to the store and consumes, 1 when there is none, "
    "or one is stopped by a signal or a debugger, or doesn't take --ping. Imports neither Celery "
    "nor Django, and changes nothing."
)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "probe",
        help="say whether a Celery worker lives, in a moment",
        description="For a liveness probe, a watchdog or a script.",
    )
    whats = parser.add_subparsers(title="what", metavar="WHAT", required=True)
    _add_arguments(
        whats.add_parser("worker", help="whether a Celery worker lives", description=_ABOUT)
    )


def worker_parser() -> argparse.ArgumentParser:
    """The parser of `celeriac probe worker` alone."""
    # With a width of its own argparse asks for no terminal's, which takes longer than all else.
    formatter = partial(argparse.HelpFormatter, width=100)
    parser = argparse.ArgumentParser(
        prog="celeriac probe worker", description=_ABOUT, formatter_class=formatter
    )
    _add_arguments(parser)
    return parser


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url", metavar="URL", help="the store: shm://app, or the broker's URL, celeriac+shm://app"
    )
    parser.add_argument(
        "--name",
        metavar="NODE",
        help="of this worker only: w1@host, as --hostname of `celery worker` says",
    )
    parser.add_argument(
        "--queue",
        metavar="QUEUE",
        help="of those only that take tasks from this queue; also of workers without remote "
        "control, which have no name here",
    )
    parser.add_argument(
        "--ping",
        type=_seconds,
        metavar="S",
        help="also see whether the worker takes a command within so many seconds: its event loop "
        "isn't stuck. A worker of the pool solo takes none while it runs a task",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the workers that are meant."""
    store = _open(options.url)
    try:
        found = _find(store, options)
        if not found:
            raise StoreNotFound(_nobody(options))
        if options.ping is not None:
            _ping(store, found, options.ping)
    finally:
        store.close()
    if options.json:
        import json

        print(json.dumps(found, indent=2))
    else:
        for worker in found:
            print(_line(worker))
    return FINE if all(worker["state"] in ("alive", "busy") for worker in found) else FINDING


def _find(store: _core.Store, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The workers that are meant. Who has just looked at his queues waits for them again at once,
    so nobody is missed for being looked at in that moment."""
    until = time.monotonic() + (PATIENCE if options.queue else 0)
    while True:
        found = workers_of(store, options.name, options.queue)
        if found or time.monotonic() >= until:
            return found
        time.sleep(0.005)


def workers_of(
    store: _core.Store, name: str | None = None, queue: str | None = None
) -> list[dict[str, Any]]:
    """The living workers, or those of a name or a queue; as dictionaries.

    The store knows who waits for messages or has reserved some. A worker that does neither, since
    it is at work on what it has acknowledged, is known by the queue of its commands, which vanishes
    with it: its state is "busy", its process unknown.
    """
    owners = {(owner["slot"], owner["epoch"]): owner for owner in store.owners() if owner["alive"]}
    found: dict[int, dict[str, Any]] = {}
    unknown = []
    for each in sorted(store.queues()):
        control = each.removesuffix(CONTROL) if each.endswith(CONTROL) else None
        seen = 0
        for slot, epoch, reserved, _ in _consumers(store, each):
            owner = owners.get((slot, epoch))
            if owner is None:
                continue
            seen += 1
            worker = found.setdefault(owner["pid"], _worker(owner, store.path))
            if control is None:
                worker["queues"].append(each)
                worker["reserved"] += reserved
            else:
                worker["name"], worker["control"] = control, each
        if control is not None and not seen:
            unknown.append(each)
    workers = [worker for _, worker in sorted(found.items())]
    workers += [_busy(each) for each in _left(store, unknown)]
    return [
        worker
        for worker in workers
        if (worker["name"] is not None if queue is None else queue in worker["queues"])
        and (name is None or _is_named(worker, name))
    ]


def _worker(owner: Mapping[str, Any], path: str) -> dict[str, Any]:
    return {
        "name": None,
        "state": processes.state_of(owner, path),
        "pid": owner["pid"],
        "seconds": round(max(time.time() - owner["started"], 0), 1),
        "queues": [],
        "reserved": 0,
        "control": None,
    }


def _busy(control: str) -> dict[str, Any]:
    return {
        "name": control.removesuffix(CONTROL),
        "state": "busy",
        "pid": None,
        "seconds": None,
        "queues": [],
        "reserved": 0,
        "control": control,
    }


def _left(store: _core.Store, queues: list[str]) -> list[str]:
    """Those of the queues whose process lives: that of a dead one is removed."""
    if queues:
        store.recover()
    return [each for each in queues if store.has_queue(each)]


def _consumers(store: _core.Store, name: str) -> Sequence[tuple[int, int, int, bool]]:
    try:
        return store.queue(name, **_NO_OPTIONS).consumers()
    except StoreNotFound:  # gone since
        return []


def _is_named(worker: Mapping[str, Any], name: str) -> bool:
    full = worker["name"] or ""
    return full == name or full.endswith(f".{name}")


def _nobody(options: argparse.Namespace) -> str:
    where = f"no worker that takes from {options.queue!r}" if options.queue else "no Celery worker"
    named = f" of the name {options.name!r}" if options.name else ""
    hint = "" if options.queue else "; without remote control it has no name here: --queue"
    return f"{where}{named} is attached to {options.url}{hint}"


def _command() -> bytes:
    """The frame (`celeriac.celery.messages`) of Celery's own `ping`, to which nobody waits for an
    answer."""
    import json

    header = ["application/json", "utf-8", {}, {"priority": 0}, CONTROL[1:], ""]
    text = json.dumps(header).encode()
    body = json.dumps({"method": "ping", "arguments": {}, "destination": None}).encode()
    return struct.pack("<BBI", 0xCE, 1, len(text)) + text + body


def _ping(store: _core.Store, found: list[dict[str, Any]], seconds: float) -> None:
    """Send each a command that does nothing, and see whether it is taken; the state of those that
    don't take it is "stuck"."""
    waiting = {}
    for worker in found:
        control = worker["control"]
        if control is None:
            raise ConfigurationError(
                f"the worker with pid {worker['pid']} has no remote control: nothing to --ping"
            )
        waiting[control] = store.queue(control, **_NO_OPTIONS)
        waiting[control].put(_command(), b"", 0, 0.0, seconds)
    until = time.monotonic() + seconds
    while waiting and time.monotonic() < until:
        time.sleep(0.001)
        for control, queue in list(waiting.items()):
            if not any(queue.counts()[:3]):  # ready, delayed, reserved
                del waiting[control]
    for worker in found:
        if worker["control"] in waiting and worker["state"] != "stopped":
            worker["state"] = "stuck"


def _line(worker: Mapping[str, Any]) -> str:
    from .tables import visible

    name = worker["name"] or "a worker without remote control"
    if worker["pid"] is None:
        return visible(f"{name}: {worker['state']}, doesn't wait for tasks now")
    takes = ", ".join(worker["queues"]) or "no queue"
    return visible(
        f"{name}: {worker['state']}, pid {worker['pid']}, for {worker['seconds']:,.0f} s, takes "
        f"from {takes}, {worker['reserved']} reserved"
    )


def _open(url: str) -> _core.Store:
    """The core's handle. What says no more than a name needs no parser of URLs."""
    url = url.removeprefix("celeriac+")
    plain = _PLAIN.match(url)
    root = os.environ.get("CELERIAC_SHM_DIR") or "/dev/shm"
    if plain is None or not os.path.isabs(root):
        from .look import look

        return look(url)._core
    return _core.open_local(
        root=root,
        name=plain[1],
        memory=1 << 28,
        memory_given=False,
        mode=0o660,  # those that are for their user alone, too
        create=False,
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 3600:
        raise argparse.ArgumentTypeError("above 0, up to 3600")
    return value
