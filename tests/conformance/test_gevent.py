"""Under gevent no wait stops the other greenlets, and each greenlet is a caller of its own."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    "libasan" in Path("/proc/self/maps").read_text(),
    reason="AddressSanitizer doesn't follow greenlets from stack to stack",
)

HEAD = """
from gevent import monkey
monkey.patch_all()
import signal, sys, time, gevent, celeriac
signal.alarm(50)  # a sleep of the core that blocks all ends here
store = celeriac.connect(sys.argv[1])
"""
Run = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def green(url: str, start_python: Callable[..., subprocess.Popen[str]]) -> Run:
    """Starts Python code that gevent has patched, with `store` open in it."""
    if importlib.util.find_spec("gevent") is None:
        pytest.skip("gevent isn't here: pip install '.[test]'")
    return lambda code: start_python(HEAD + code, url, stderr=None)


def said(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=60)[0].strip()


def test_who_waits_for_a_message_lets_others_run(green: Run) -> None:
    code = """
queue = store.queue("q")
def consume():
    return queue.get(timeout=20).body
waiting = [gevent.spawn(consume) for _ in range(20)]
gevent.sleep(0.01)
for number in range(19):
    queue.put(str(number))
queue.put("late", delay=0.05)
print(len({greenlet.get() for greenlet in waiting}), queue.get(timeout=0.05), queue.get(0))
"""
    assert said(green(code)) == "20 None None"


def test_a_greenlet_that_is_killed_takes_no_message(green: Run) -> None:
    code = """
queue = store.queue("q")
waiting = gevent.spawn(queue.get)
gevent.sleep(0.01)
waiting.kill()
queue.put("for another")
print(queue.get(timeout=20).body)
"""
    assert said(green(code)) == "b'for another'"


def test_a_put_that_waits_for_room_lets_others_run(green: Run) -> None:
    code = """
queue = store.queue("full", max_length=1)
queue.put("first")
def take():
    gevent.sleep(0.05)
    queue.get(timeout=0).ack()
gevent.spawn(take)
queue.put("second", timeout=20)
gevent.spawn(lambda: [gevent.sleep(0.02) or queue.get(timeout=20).ack() for _ in range(3)])
ids = queue.put_many(["a", "b"], timeout=20)
try:
    while True:
        queue.put("too many", timeout=0.05)
except celeriac.QueueFull:
    print(len(set(ids)), queue.counts().done >= 3)
"""
    assert said(green(code)) == "2 True"


def test_one_greenlet_computes_for_all(green: Run) -> None:
    code = """
cache, calls = store.cache(), []
def compute():
    calls.append(1)
    gevent.sleep(0.1)
    return "value"
asked = [gevent.spawn(cache.get_or_set, "key", compute, wait=20) for _ in range(30)]
print({greenlet.get() for greenlet in asked}, len(calls))
"""
    assert said(green(code)) == "{'value'} 1"


def test_a_greenlet_that_would_wait_for_itself_is_told(green: Run) -> None:
    code = """
cache = store.cache()
def compute():
    return cache.get_or_set("key", compute)
try:
    gevent.spawn(cache.get_or_set, "key", compute).get()
except celeriac.DeadlockError:
    print("told")
"""
    assert said(green(code)) == "told"


def test_when_the_process_that_computes_dies_a_greenlet_takes_over(
    green: Run, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    other = python("""
def compute():
    print("computing", flush=True)
    time.sleep(600)
store.cache().get_or_set("key", compute)
""")
    assert other.stdout is not None
    assert other.stdout.readline() == "computing\n"
    process = green("""
waiting = gevent.spawn(store.cache().get_or_set, "key", lambda: "ours", wait=None)
gevent.sleep(0.05)
print("waiting", flush=True)
print(waiting.get())
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    other.kill()
    assert said(process) == "ours"


def test_changes_of_a_table(green: Run) -> None:
    code = """
table = store.table("t")
seen = table.change_count("k")
print(table.wait_for_change("k", seen, 0.02), end=" ")
gevent.spawn_later(0.02, table.set, "k", 1)
print(table.wait_for_change("k", seen, 20))
"""
    assert said(green(code)) == "False True"


def test_locks(green: Run) -> None:
    code = """
lock, order = store.lock("l"), []
def work(number):
    with store.lock("l", timeout=20) as mine:
        order.append(number)
        gevent.sleep(0.002)
        assert mine.token and not lock.token
lock.acquire()
greenlets = []
for number in range(4):
    greenlets.append(gevent.spawn(work, number))
    gevent.sleep(0.005)
given_up = gevent.spawn(lock.acquire)
gevent.sleep(0.005)
given_up.kill()
print(lock.waiting(), store.lock("l").acquire(timeout=0.02), end=" ")
lock.release()
gevent.joinall(greenlets)
elected = []
leader, other = store.leader("x"), store.leader("x")
other.acquire()
leader.campaign(elected.append)
gevent.sleep(0.05)
other.release()
while not elected:
    gevent.sleep(0.005)
print(order, leader.is_leader, lock.locked())
"""
    assert said(green(code)) == "4 False [0, 1, 2, 3] True False"


def test_when_the_holder_of_a_lock_dies_a_greenlet_has_it(
    green: Run, python: Callable[[str], subprocess.Popen[str]]
) -> None:
    other = python("store.lock('l').acquire(); print('held', flush=True); time.sleep(600)")
    assert other.stdout is not None
    assert other.stdout.readline() == "held\n"
    process = green("""
waiting = gevent.spawn(store.lock("l").acquire)
gevent.sleep(0.05)
print("waiting", flush=True)
print(waiting.get())
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    other.kill()
    assert said(process) == "True"
