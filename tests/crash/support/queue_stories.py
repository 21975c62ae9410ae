"""Stories that are told of queues: by victims that die in the middle of them."""

from __future__ import annotations

import os
import signal
import threading
import time

from victims import Victim, fill


def cycle(v: Victim) -> None:
    v.connect()
    v.queue("q", max_length=100, max_deliveries=50)
    v.put("a", 10)
    v.put("b", 5000, priority=5, headers={"h": 1})
    v.put("c")
    v.ack(v.get())
    message = v.get()
    v.nack(message)
    again = v.get()
    v.nack(again, delay=0.001)
    time.sleep(0.005)
    v.ack(v.get())
    v.put("d", 200)
    v.ack(v.get())
    v.put("e", 64)
    held = v.get()
    v.put("f", 64)
    v.put("g", 64)
    v.ack(held)


def delayed(v: Victim) -> None:
    v.connect()
    for i in range(4):
        v.put(f"d{i}", 30, delay=0.002 * (4 - i))
    v.put("later", delay=0.06)
    time.sleep(0.02)
    for _ in range(3):
        v.ack(v.get())


def many_delayed(v: Victim) -> None:
    v.connect()
    for i in range(300):
        v.put(f"m{i}", i % 50, delay=0.1)


def many(v: Victim) -> None:
    v.connect()
    for i in range(2300):  # more than a lane holds twice, and than two chunks of slots
        v.put(f"m{i}", 3)
    for _ in range(2200):
        v.ack(v.get())


def of_large(v: Victim) -> None:
    """Bodies for which the arena grows, at its end of which is a free rest."""
    v.connect()
    for i in range(8):
        v.put(f"l{i}", 300_000)
    for _ in range(8):
        v.ack(v.get())


def purge(v: Victim) -> None:
    v.connect()
    for i in range(6):
        v.put(f"p{i}", 100, priority=i % 2, delay=0 if i < 4 else 0.03)
    queue = v.queue()
    v.call({"purge": True}, queue.purge)
    v.put("after")


def delete(v: Victim) -> None:
    v.connect()
    for i in range(6):
        v.put(f"p{i}", 100, priority=i % 2, delay=0 if i < 4 else 0.03)
    queue = v.queue()
    v.call({"purge": True}, queue.delete)
    v.put("after")


def blocked_consumer(v: Victim) -> None:
    """Dies while it sleeps: its mark stays, and a putter meets it."""
    v.connect()
    queue = v.queue()
    pid = os.getpid()
    if os.fork() == 0:
        time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        os._exit(0)
    queue.get(None)


def put_two(v: Victim) -> None:
    v.connect()
    v.put("w1", 10)
    v.put("w2", 10)
    v.ack(v.get())


def dead(v: Victim) -> None:
    """Given back with reasons until they are dead; put back; removed."""
    v.connect()
    queue = v.queue("q", max_deliveries=2)
    for name in ("a", "b", "c"):
        v.put(name, 40)
    for delay in (0, 0.001, 0):
        v.nack(v.get(), delay, "once")
    time.sleep(0.005)
    for _ in range(3):
        v.nack(v.get(), 0, "twice " * 40)
    v.call({}, lambda: queue.retry_dead([queue.dead()[1].id]))
    v.ack(v.get())
    v.call({}, queue.retry_dead)
    for _ in range(4):
        v.nack(v.get())
    # All that there is: of what an earlier victim left, some aren't dead yet.
    v.call({"purge": True}, lambda: (queue.purge_dead(), queue.purge()))
    v.put("d")


def dead_letters(v: Victim) -> None:
    v.connect()
    v.queue("q", max_deliveries=1, dead_letter="morgue")
    morgue = v.queue("morgue")
    for name in ("a", "b"):
        v.put(name, 40, priority=3)
    for _ in range(2):
        v.nack(v.get(), 0, "no")
    v.put("c", ttl=0.0001)
    time.sleep(0.001)
    queue = v.queue()
    v.call({}, lambda: queue.get(0))
    message = v.call({}, lambda: morgue.get(0))
    v.ack(message)


def kept(v: Victim) -> None:
    v.connect()
    v.queue("q", keep_done=(2, 100), keep_failed=(100, None), max_deliveries=1)
    for i in range(5):
        v.put(f"k{i}", 30)
        v.ack(v.get())
    v.put("dead")
    v.nack(v.get(), 0, "why")
    queue = v.queue()
    v.call({}, queue.done)
    v.call({"purge": True}, queue.purge_dead)


def cancelled(v: Victim) -> None:
    v.connect()
    queue = v.queue()
    for delay in (0, 0.05):
        number = v.put("a", 30, delay=delay)
        v.call({"ack": f"a.{v.number}"}, lambda number=number: queue.cancel(number))
    v.call({}, queue.pause)
    v.put("b", 30)
    v.call({}, queue.resume)
    v.ack(v.get())
    v.call({}, lambda: queue.put("expired", ttl=0))
    v.call({}, lambda: queue.get(0))


def deduplicated(v: Victim) -> None:
    """More keys than the first table holds; those that are done are free."""
    v.connect()
    queue = v.queue()
    for i in range(40):
        v.put(f"d{i}", dedup_key=f"k{i}")
        v.call({}, lambda i=i: queue.put("never", dedup_key=f"k{i}"))
    for _ in range(38):
        v.ack(v.get())
    v.put("again", dedup_key="k0")
    v.put("window", dedup_key="w", dedup_ttl=100)
    v.call({"purge": True}, queue.delete)
    v.put("after", dedup_key="k0")


def visibility(v: Victim) -> None:
    v.connect()
    v.queue("q", visibility=0.02, max_deliveries=2)
    v.put("a", 30)
    message = v.get()
    v.call({}, lambda: message.extend(0.03))
    v.call({}, lambda: message.extend(0.01))
    v.ack(v.get(5))
    v.put("b", 30)
    v.get()
    v.get(5)
    time.sleep(0.03)
    queue = v.queue()
    v.call({}, lambda: queue.get(0))


def room(v: Victim) -> None:
    v.connect()
    queue = v.queue("q", max_length=1)
    v.put("a")

    def wait() -> None:
        taker = threading.Timer(0.02, lambda: queue.get(0).ack())
        taker.start()
        queue.put(fill(f"b.{v.number}", 0), timeout=10)
        taker.join()

    v.call({"put": f"b.{v.number}", "ack": f"a.{v.number}"}, wait)


def poison(v: Victim) -> None:
    """Dies with messages that nobody is to have any more."""
    v.connect()
    v.queue("q", max_deliveries=1)
    v.queue("r", max_deliveries=1, dead_letter="morgue")
    v.put("p1", 30)
    v.get()
    queue = v.queue("r")
    name = f"p2.{v.number}"
    v.call({"put": name}, lambda: queue.put(fill(name, 30)))
    v.call({}, lambda: queue.get(0))


def after_poison(v: Victim) -> None:
    v.connect()
    v.call({}, v.store.recover)
    v.put("more")
    v.ack(v.get())
