"""`celeriac queues|dead|retry|purge|pause|resume`: the queues of a store, and what to do to one."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from celeriac.errors import StoreCorrupt, StoreNotFound
from celeriac.message import Ended
from celeriac.queue import Queue
from celeriac.store import Store

from .asking import agreed
from .look import look
from .rates import per_second
from .tables import print_table, visible

FINE, FINDING = 0, 1
SHOWN_BYTES = 60


def add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands to the parser."""
    parser = _command(
        commands,
        "queues",
        queues,
        "show the queues of a store",
        "Shows each queue's messages by state, the age of the oldest ready one, messages put and "
        "acknowledged a second, and its consumers. Changes nothing.",
        of_queue=False,
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=1.0,
        metavar="S",
        help="how long to count for the rates (default: 1)",
    )
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")

    parser = _command(
        commands,
        "dead",
        dead,
        "show a queue's dead messages, and why they died",
        "Shows dead messages, the first to die first. Changes nothing. Exit code 1 when there are "
        "any.",
    )
    parser.add_argument("--limit", type=_count, default=50, metavar="N", help="(default: 50)")
    parser.add_argument("--json", action="store_true", help="as JSON, with the whole bodies")

    parser = _command(
        commands,
        "retry",
        retry,
        "put dead messages back",
        "Makes dead messages ready again, all of them or those whose ids are given.",
    )
    parser.add_argument(
        "ids", nargs="*", type=_id, metavar="ID", help="as `celeriac dead` shows them"
    )

    parser = _command(
        commands,
        "purge",
        purge,
        "remove a queue's messages",
        "Removes all ready and delayed messages of a queue, or its dead ones. Asks first.",
    )
    parser.add_argument("--dead", action="store_true", help="the dead ones instead")
    parser.add_argument("--yes", action="store_true", help="don't ask")

    _command(
        commands,
        "pause",
        pause,
        "deliver no message of a queue until resume",
        "Pauses a queue: it takes messages and delivers none, until `celeriac resume`.",
    )
    _command(commands, "resume", resume, "end a pause", "Lets a paused queue deliver again.")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
    of_queue: bool = True,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary, description=description)
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    if of_queue:
        parser.add_argument("queue", metavar="QUEUE", help="the queue's name")
    parser.set_defaults(run=run)
    return parser


def queues(options: argparse.Namespace) -> int:
    """Print a row for each queue."""
    with look(options.url) as store:
        before = store.stats()["queues"]
        began = time.monotonic()
        if before:
            time.sleep(options.seconds)
        took = time.monotonic() - began
        rows = {name: row for name in before if (row := row_of(store, name, before[name], took))}
    if options.json:
        print(json.dumps(rows, indent=2))
        return FINE
    if not rows:
        print(f"no queues in {options.url}")
        return FINE
    heads = list(next(iter(rows.values())))
    print_table(
        ["queue", *heads],
        [[visible(name), *map(_show, row.values())] for name, row in rows.items()],
    )
    return FINE


def row_of(
    store: Store, name: str, before: Mapping[str, int], seconds: float
) -> dict[str, Any] | None:
    """A queue's states, age, rates since `before`, and consumers; None when it is gone."""
    try:
        queue = store.queue(name, create=False)
        counts, age = queue.counts(), queue.oldest_age()
        consumers, paused = queue.consumers(), queue.paused
    except StoreNotFound:  # gone since
        return None
    rate = (lambda new, old: per_second(old, new, seconds)) if seconds else (lambda *_: None)
    return {
        **counts._asdict(),
        "oldest_seconds": None if age is None else round(age, 3),
        "put_per_second": rate(sum(counts), sum(before.values())),
        "done_per_second": rate(counts.done, before["done"]),
        "consumers": len(consumers),
        "state": "paused" if paused else "open",
    }


def dead(options: argparse.Namespace) -> int:
    """Print dead messages."""
    with look(options.url) as store:
        queue = _existing(store, options)
        found, count = queue.dead(options.limit), queue.counts().dead
    if options.json:
        print(json.dumps([_as_json(message) for message in found], indent=2))
    elif found:
        heads = ["id", "died", "deliveries", "priority", "bytes", "reason", "body"]
        print_table(heads, [_as_row(message) for message in found])
        if count > len(found):
            print(f"{count - len(found):,} more: --limit {count}")
    else:
        print(f"no dead messages in {visible(options.queue)!r}")
    return FINDING if found else FINE


def _as_row(message: Ended) -> list[str]:
    died = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(message.when))
    body, size = "damaged", "-"
    if not isinstance(message.body, StoreCorrupt):
        size = f"{len(message.body):,}"
        body = message.body[:SHOWN_BYTES].decode(errors="backslashreplace")
    numbers = [str(message.deliveries), str(message.priority), size]
    return [message.id, died, *numbers, message.reason, body]


def _as_json(message: Ended) -> dict[str, Any]:
    fields: dict[str, Any] = message._asdict()
    damaged = isinstance(message.body, StoreCorrupt)
    fields["body"] = None if damaged else message.body.decode(errors="backslashreplace")  # type: ignore[union-attr]
    return fields


def retry(options: argparse.Namespace) -> int:
    """Put dead messages back."""
    with look(options.url) as store:
        n = _existing(store, options).retry_dead(options.ids or None)
    print(f"{n:,} put back")
    missing = len(set(options.ids)) - n
    if options.ids and missing:
        print(f"celeriac: {missing:,} of these ids are no dead messages", file=sys.stderr)
    return FINDING if options.ids and missing else FINE


def purge(options: argparse.Namespace) -> int:
    """Remove messages, after a question."""
    with look(options.url) as store:
        queue = _existing(store, options)
        counts = queue.counts()
        n = counts.dead if options.dead else counts.ready + counts.delayed
        kind = "dead" if options.dead else "ready and delayed"
        question = f"remove {n:,} {kind} messages of {visible(options.queue)!r}? [y/N] "
        if not options.yes and not agreed(question):
            print("nothing was removed")
            return FINDING
        n = queue.purge_dead() if options.dead else queue.purge()
    print(f"{n:,} removed")
    return FINE


def pause(options: argparse.Namespace) -> int:
    """Pause."""
    with look(options.url) as store:
        _existing(store, options).pause()
    print(f"{visible(options.queue)!r} is paused")
    return FINE


def resume(options: argparse.Namespace) -> int:
    """End a pause."""
    with look(options.url) as store:
        _existing(store, options).resume()
    print(f"{visible(options.queue)!r} delivers")
    return FINE


def _existing(store: Store, options: argparse.Namespace) -> Queue:
    """The queue. Raises StoreNotFound, with the names that there are."""
    if not store.has_queue(options.queue):
        there = ", ".join(map(visible, sorted(store.queues()))) or "none"
        raise StoreNotFound(
            f"no queue {visible(options.queue)!r} in {options.url}; there are: {there}"
        )
    return store.queue(options.queue, create=False)


def _show(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError("between 0 and 3600")
    return value


def _id(text: str) -> str:
    if not re.fullmatch("[0-9a-f]{16}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no id: 16 digits of 0-9 and a-f")
    return text


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value
