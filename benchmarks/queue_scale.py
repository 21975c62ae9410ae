"""A queue of many: `python -m benchmarks.queue_scale [most]`, from the root of a clone.

Microseconds of CPU for a put and for a get with its ack while so many messages are ready; for a
delayed put and a cancel while so many are delayed; how late delayed messages come with so many
behind them; and bodies of up to 64 MB. A million, the default, needs a gigabyte of /dev/shm.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

import celeriac

FEW = 1000
BATCH = 20_000
STEADY = 1_000_000
FAR = 3600


def per_message(seconds: float, n: int) -> str:
    """Microseconds."""
    return f"{seconds / n * 1e6:7.2f} µs"


def _ready(store: celeriac.Store, many: int) -> None:
    queue = store.queue("ready")
    body = b"x" * 256
    begin = time.process_time()
    for _ in range(many):
        queue.put(body)
    filled = time.process_time()
    for _ in range(many):
        message = queue.get(0)
        assert message is not None
        message.ack()
    end = time.process_time()
    print(f"ready {many:>9,}: put {per_message(filled - begin, many)}", end=", ")
    print(f"get and ack {per_message(end - filled, many)}", end="; ")
    queue.put_many([body] * many)
    seconds = 0.0
    for _ in range(STEADY // FEW):  # at a steady depth, till each has been through it
        begin = time.process_time()
        for _ in range(FEW):
            queue.put(body)
            message = queue.get(0)
            assert message is not None
            message.ack()
        seconds += time.process_time() - begin
    print(f"put, get, ack at that depth {per_message(seconds, STEADY)}")
    queue.delete()


def _delayed(store: celeriac.Store, many: int) -> None:
    queue = store.queue("delayed")
    begin = time.process_time()
    for i in range(many):
        queue.put(b"x", delay=FAR + i * 7919 % many / 1000)
    filled = time.process_time()
    n = min(many, BATCH)
    ids = [queue.put(b"x", delay=FAR + i) for i in range(n)]
    put = time.process_time()
    for number in ids:
        assert queue.cancel(number)
    cancelled = time.process_time()
    late = []
    for _ in range(100):
        due = time.perf_counter() + 0.01
        queue.put(b"soon", delay=0.01)
        message = queue.get(5)
        late.append(time.perf_counter() - due)
        assert message is not None
        message.ack()
    print(
        f"delayed {many:>9,}: put {per_message(filled - begin, many)}, at that depth "
        f"{per_message(put - filled, n)}, cancel {per_message(cancelled - put, n)}; late by "
        f"{statistics.median(late) * 1e3:.2f} ms, at most {max(late) * 1e3:.2f} ms"
    )
    queue.delete()


def _large(store: celeriac.Store) -> None:
    queue = store.queue("large")
    for megabytes in (1, 16, 64):
        body = os.urandom(1 << 20) * megabytes
        begin = time.process_time()
        queue.put(body)
        message = queue.get(0)
        assert message is not None
        assert message.body == body
        message.ack()
        print(f"body of {megabytes} MB: put, get, ack {time.process_time() - begin:.3f} s")


def main() -> None:
    """Prints the table."""
    most = int(sys.argv[1].replace(",", "")) if len(sys.argv) > 1 else 1_000_000
    store = celeriac.connect(f"shm://scale-{os.getpid()}", memory="1G")
    try:
        for many in (FEW, most):
            _ready(store, many)
        for many in (FEW, most):
            _delayed(store, many)
        _large(store)
    finally:
        store.destroy(force=True)


if __name__ == "__main__":
    main()
