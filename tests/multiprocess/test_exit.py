"""How processes that use a store end: quietly, whatever their threads were doing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable

import children
import pytest

import celeriac

Python = Callable[..., "subprocess.Popen[str]"]

LOOPS = {
    "short waits": "q.get(0.001)",
    "no waits": "q.get(0)",
    "one long wait": "q.get(None)",
    "changes": 't.wait_for_change("k", t.change_count("k"), 0.001)',
    "messages": 'q.put(b"x"); q.get(None).ack()',
    "cache": 'c.set("k", [1]); c.get("k"); c.incr("n")',
    "event loop": "w.arm(); select.select([w.fileno()], [], [], 0.001); w.drain()",
}
THREADS = """
import select
q, t, c = store.queue("q"), store.table("t"), store.cache()
c.set("n", 0)
def run():
    w = store.waiter()
    w.watch(q)
    while True:
        try:
            LOOP
        except celeriac.ConfigurationError:
            time.sleep(0.001)  # closed by then; go on all the same
threads = [threading.Thread(target=run, daemon=True) for _ in range(4)]
for thread in threads:
    thread.start()
time.sleep(0.1)
"""


def ends_well(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, ""), err
    assert out == ""


@pytest.mark.parametrize("how", sorted(LOOPS))
def test_daemon_threads_in_the_middle_of_a_call(python: Python, how: str) -> None:
    for process in [python(THREADS.replace("LOOP", LOOPS[how])) for _ in range(3)]:
        ends_well(process)


@pytest.mark.parametrize("how", sorted(LOOPS))
def test_daemon_threads_and_a_closed_store(python: Python, how: str) -> None:
    for process in [
        python(THREADS.replace("LOOP", LOOPS[how]) + "store.close()") for _ in range(2)
    ]:
        ends_well(process)


def test_what_was_reserved_is_given_back_at_exit(store: celeriac.Store, python: Python) -> None:
    queue = store.queue("q")
    queue.put(b"x")
    ends_well(python('kept = store.queue("q").get(0)\nassert kept'))
    assert queue.counts().ready == 1
    message = queue.get(0)
    assert message is not None
    assert message.redelivered


def test_use_after_the_close_at_exit(python: Python) -> None:
    """An atexit function that runs after celeriac's own, and an object's destructor."""
    ends_well(
        python("""
import atexit
def late():
    try:
        store.cache().get("k")
    except celeriac.ConfigurationError:
        return
    raise SystemExit("not closed")
atexit._run_exitfuncs()
late()
class AtTheEnd:
    def __init__(self):
        self.store, self.celeriac = store, celeriac
    def __del__(self):
        try:
            self.store.cache().get("k")
        except self.celeriac.ConfigurationError:
            pass
sys.at_the_end = AtTheEnd()
""")
    )


def test_threads_that_are_waited_for(store: celeriac.Store, python: Python) -> None:
    """A thread that is no daemon goes on while the main thread has ended."""
    process = python("""
q = store.queue("q")
def run():
    m = q.get(60)
    q.put(b"answer to " + m.body)
    m.ack()
threading.Thread(target=run).start()
""")
    time.sleep(0.3)
    store.queue("q").put(b"question")
    ends_well(process)
    message = store.queue("q").get(0)
    assert message is not None
    assert message.body == b"answer to question"


@pytest.mark.parametrize("code", ["os._exit(0)", "sys.exit()", "del store", "store.destroy()"])
def test_other_ends(python: Python, code: str) -> None:
    ends_well(python('kept = [store.queue("q"), store.cache(), store.waiter()]\n' + code))


def test_handles_in_cycles(python: Python) -> None:
    ends_well(
        python("""
cycle = [store, store.cache(), store.table("t"), store.queue("q"), store.waiter()]
cycle[3].put(b"x")
cycle.append(cycle[3].get(0))
cycle.append(cycle)
del store, cycle
""")
    )


# ------------------------------------------------------------------ signals

WAITS = {
    "queue, for ever": 'store.queue("q").get()',
    "queue, a while": 'store.queue("q").get(60)',
    "table": 'store.table("t").wait_for_change("k", store.table("t").change_count("k"))',
}


def parked(pid: int) -> bool:
    """The main thread sleeps in the kernel on a futex."""
    with open(f"/proc/{pid}/wchan") as f:
        where = f.read()
    if where and where != "0":
        return "futex" in where
    with open(f"/proc/{pid}/stat") as f:  # no names of kernel functions here
        return f.read().rpartition(")")[2].split()[0] == "S"


@pytest.mark.parametrize("wait", sorted(WAITS))
@pytest.mark.parametrize("watched", [False, True], ids=["alone", "with the watcher thread"])
def test_ctrl_c_ends_a_wait(python: Python, wait: str, watched: bool) -> None:
    process = python(f"""
import signal
# A shell that starts the tests in the background has SIGINT ignored, which children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
if {watched}:
    store.queue("other").get(0.01)
print("waits", flush=True)
try:
    {WAITS[wait]}
except KeyboardInterrupt:
    print("interrupted", flush=True)
store.queue("q").put(b"still usable")
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    deadline = time.monotonic() + 30
    while not parked(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted\n"
    assert process.wait(30) == 0


@pytest.mark.parametrize("wait", sorted(WAITS))
def test_ctrl_c_ends_a_wait_that_is_about_to_sleep(python: Python, wait: str) -> None:
    """The signal comes when it likes: before the wait, while it starts, while it sleeps."""
    process = python(f"""
import signal
# A shell that starts the tests in the background has SIGINT ignored, which children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in range(100):
    try:
        print("waits", flush=True)
        {WAITS[wait]}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
""")
    assert process.stdout is not None
    for turn in range(100):
        assert process.stdout.readline() == "waits\n"
        time.sleep(turn % 20 * 0.00002)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
    assert process.wait(30) == 0


def test_a_handler_that_returns_does_not_end_a_wait(store: celeriac.Store, python: Python) -> None:
    process = python("""
import signal
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
print("waits", flush=True)
print(store.queue("q").get(60).body, flush=True)
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    for _ in range(3):
        time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "handled\n"
    store.queue("q").put(b"x")
    assert process.stdout.readline() == "b'x'\n"


def test_an_interrupted_wait_loses_nothing(store: celeriac.Store, python: Python) -> None:
    """Messages and interrupts at once: each message is taken by one or is still there."""
    process = python("""
import signal
q = store.queue("q")
waiting = False
class Stop(Exception): pass
def stop(*_):
    global waiting
    if waiting:
        waiting = False
        raise Stop
signal.signal(signal.SIGUSR1, stop)
print("ready", flush=True)
while True:
    try:
        waiting = True
        m = q.get(60)
        waiting = False
        m.ack()
    except Stop:
        pass
""")
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    queue = store.queue("q")
    for i in range(200):
        os.kill(process.pid, signal.SIGUSR1)
        queue.put(b"%d" % i)
    deadline = time.monotonic() + 30
    while queue.counts().ready and time.monotonic() < deadline:
        time.sleep(0.01)
    assert queue.counts().ready == 0
    assert process.poll() is None
    # What came at the moment of an interrupt is reserved: the caller's, though he has lost it.
    # The last one may be on its way from one number to the other.
    children.until(lambda: sum(queue.counts()[2:]) == 200)
