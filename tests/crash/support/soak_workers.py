"""The processes of the kill soak: what each role does until it is killed or told to end.

A worker is a forked process that connects by itself. SIGTERM asks it to end in good order: a
producer after the put() at hand, a consumer when the queue stays empty. Each function of `ROLES`
runs one role and returns when asked to.
"""

from __future__ import annotations

import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import soak_ledger as ledger
from soak_ledger import Ledger

import celeriac

QUEUE: Final = "soak"
MAX_LENGTH: Final = 400
PRIORITIES: Final = (0, 0, 0, 5, 255)
KEYS: Final = 1500  # of the cache
COUNTERS: Final = 8
VALUE_LIMIT: Final = 65536
BATCH: Final = 6  # messages that a consumer holds at most
EMPTY: Final = 0.6  # seconds without a message after which a consumer that may end does
LATE_FROM: Final = 0.02  # a wait that ends later than that after its deadline is noted


class Worker:
    """What the roles share."""

    def __init__(self, url: str, folder: Path, role: str, incarnation: int, seed: int) -> None:
        self.ending = False
        self.stopped = False
        signal.signal(signal.SIGTERM, self._end)
        signal.signal(signal.SIGCONT, self._continued)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        self.role = role
        self.incarnation = incarnation
        self.draw = random.Random(seed * 1_000_003 + incarnation)
        self.ledger = Ledger(folder, role, incarnation)
        self.store = celeriac.connect(url)
        try:
            self._schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a kernel without: then lateness includes it
            self._schedstat = -1

    def _end(self, *_: object) -> None:
        self.ending = True

    def _continued(self, *_: object) -> None:
        self.stopped = True

    def starved(self) -> float:
        """Seconds in which this thread could have run and got no CPU, so far."""
        if self._schedstat < 0:
            return 0.0
        return int(os.pread(self._schedstat, 100, 0).split()[1]) / 1e9

    def new_number(self, sequence: int) -> int:
        """A number that no other incarnation makes."""
        return self.incarnation << 32 | sequence


def produce(worker: Worker) -> None:
    """Puts messages of mixed sizes, priorities and delays; intent before, acknowledgement after."""
    queue = worker.store.queue(QUEUE, max_length=MAX_LENGTH)
    draw, book = worker.draw, worker.ledger
    sequence = 0
    while not worker.ending:
        sequence += 1
        number = worker.new_number(sequence)
        body = ledger.make_body(number, ledger.draw_size(draw), draw)
        delay = draw.uniform(0.001, 0.2) if draw.random() < 0.05 else 0
        headers = {"n": sequence} if draw.random() < 0.1 else None
        book.note(ledger.INTENT, number)
        try:
            queue.put(body, priority=draw.choice(PRIORITIES), delay=delay, headers=headers)
        except celeriac.QueueFull:
            book.note(ledger.REFUSED, number)
            time.sleep(draw.uniform(0.0005, 0.004))
        except celeriac.LockTimeout:
            book.note(ledger.BUSY, number)
        else:
            book.note(ledger.DONE, number)


def _timed_get(worker: Worker, queue: Any, timeout: float) -> Any:
    """get(), and a note when it came back late; time without a CPU is nobody's fault."""
    worker.stopped = False
    starved = worker.starved()
    begun = time.monotonic()
    message = queue.get(timeout)
    over = time.monotonic() - begun - timeout
    if over > LATE_FROM:
        over -= worker.starved() - starved
    if over > LATE_FROM:
        kind = ledger.LATE_STOPPED if worker.stopped else ledger.LATE
        worker.ledger.note(kind, 0, int(over * 1000))
    return message


def _settle(worker: Worker, message: Any, number: int) -> None:
    """Acknowledges or gives back, with records around."""
    draw, book = worker.draw, worker.ledger
    give_back = not worker.ending and draw.random() < 0.04
    try:
        if give_back:
            book.note(ledger.GIVING_BACK, number, message.deliveries)
            message.nack(delay=draw.choice((0, 0, draw.uniform(0.001, 0.1))))
            book.note(ledger.GIVEN_BACK, number, message.deliveries)
        else:
            message.ack()
            book.note(ledger.ACKED, number, message.deliveries)
    except celeriac.NotOwner:
        book.note(ledger.REJECTED, number, message.deliveries)


def consume(worker: Worker) -> None:
    """Gets, checks, holds a few, acknowledges most and gives some back."""
    queue = worker.store.queue(QUEUE, max_length=MAX_LENGTH)
    draw, book = worker.draw, worker.ledger
    held: list[tuple[Any, int]] = []
    while True:
        timeout = EMPTY if worker.ending else draw.choice((0, 0.005, 0.05, 0.3))
        message = _timed_get(worker, queue, 0 if held else timeout)
        if message is not None:
            number = ledger.number_of(message.body)
            if number is None:
                book.note(ledger.TORN, 0, message.deliveries)
                message.ack()
                continue
            book.note(ledger.GOT, number, message.deliveries)
            held.append((message, number))
        elif worker.ending and not held:
            return
        if held and (message is None or len(held) >= draw.randint(1, BATCH)):
            for one, number in held:
                _settle(worker, one, number)
            held.clear()


def write_cache(worker: Worker) -> None:
    """Writes the keys of its own number (so that values of a key only grow), in every way."""
    cache = worker.store.cache("soak", ttl=60)
    draw = worker.draw
    share = int(worker.role[-1])
    sequence = 0
    while not worker.ending:
        sequence += 1
        key = f"k{draw.randrange(KEYS) * 2 + share}"
        body = ledger.make_body(worker.new_number(sequence), ledger.draw_size(draw) // 2 + 1, draw)
        dice = draw.random()
        try:
            if dice < 0.72:
                cache.set(key, body, draw.choice((None, 60, 0.05)))
            elif dice < 0.80:
                cache.add(key, body)
            elif dice < 0.85:
                cache.replace(key, body)
            elif dice < 0.93:
                cache.delete(key)
            elif dice < 0.98:
                cache.touch(key, 30)
            elif dice < 0.999:
                cache.cull(draw.randint(1, 20))
            else:
                cache.clear()
        except celeriac.LockTimeout:
            worker.ledger.note(ledger.BUSY, sequence)


def read_cache(worker: Worker) -> None:
    """Reads and checks: a value is whole, and never older than one read before."""
    cache = worker.store.cache("soak", ttl=60)
    draw = worker.draw
    newest: dict[str, int] = {}
    while not worker.ending:
        keys = [f"k{draw.randrange(2 * KEYS)}" for _ in range(draw.choice((1, 1, 1, 20)))]
        found = cache.get_many(keys) if len(keys) > 1 else {keys[0]: cache.get(keys[0])}
        for key, body in found.items():
            if body is None:
                continue
            number = ledger.number_of(body) if isinstance(body, bytes) else None
            if number is None:
                worker.ledger.note(ledger.TORN, 1)
            elif number < newest.get(key, 0):
                worker.ledger.note(ledger.STALE, number)
            else:
                newest[key] = number


def count(worker: Worker) -> None:
    """Adds to integers of a table, by increment and by compare-and-set."""
    table = worker.store.table("soak-table")
    draw, book = worker.draw, worker.ledger
    while not worker.ending:
        which = draw.randrange(2 * COUNTERS)
        book.note(ledger.INTENT, which)
        try:
            if which < COUNTERS:
                table.incr(f"c{which}")
                book.note(ledger.DONE, which)
                continue
            value, version = table.get_versioned(f"c{which}")
            # A value whose length changes, so that it moves from block to block.
            grown = value[:8] + value[:8] * draw.randint(0, 40)
            total = (int.from_bytes(value[:8], "little") + 1).to_bytes(8, "little")
            if table.compare_and_set(f"c{which}", version, total + grown[8:]):
                book.note(ledger.DONE, which)
            else:
                book.note(ledger.REFUSED, which)
        except celeriac.LockTimeout:
            book.note(ledger.BUSY, which)
        except celeriac.NotEnoughMemory:
            book.note(ledger.REFUSED, which)


ROLES: Final[dict[str, Callable[[Worker], None]]] = {
    **{f"producer{i}": produce for i in range(4)},
    **{f"consumer{i}": consume for i in range(4)},
    **{f"writer{i}": write_cache for i in range(2)},
    "reader0": read_cache,
    **{f"counter{i}": count for i in range(2)},
}


def prepare(store: celeriac.Store) -> None:
    """Makes what the counters add to."""
    table = store.table("soak-table")
    for which in range(COUNTERS):
        table.set(f"c{which}", 0)
        table.set(f"c{COUNTERS + which}", bytes(8))


def totals(store: celeriac.Store) -> list[int]:
    """What the counters say."""
    table = store.table("soak-table")
    plain = [table.get(f"c{which}") for which in range(COUNTERS)]
    swapped = [table.get(f"c{COUNTERS + which}") for which in range(COUNTERS)]
    return plain + [int.from_bytes(value[:8], "little") for value in swapped]


def run(url: str, folder: Path, role: str, incarnation: int, seed: int) -> None:
    """The whole life of a forked worker; never returns."""
    status = 1
    try:
        worker = Worker(url, folder, role, incarnation, seed)
        try:
            ROLES[role](worker)
            worker.store.close()
            status = 0
        except BaseException:
            worker.ledger.broken(traceback.format_exc())
    except BaseException:
        (folder / f"{incarnation:06d}.{role}.error").write_text(traceback.format_exc())
    finally:
        os._exit(status)
