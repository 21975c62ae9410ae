"""Processes that are killed at a named point, and what may be found after them.

A victim runs a story (see scenarios.py) and tells by a pipe, before each call, what the call is to
change, and after it, that it returned. So after its death every message and every key has a set of
allowed states: what returned has happened; the one call under way has happened or not.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import celeriac
from celeriac import _core

PATIENCE: Final = 30.0  # seconds after which a process hangs
_numbers = itertools.count(1)


class Victim:
    """What a story is told with: the calls of a store, each told before and after."""

    def __init__(self, url: str, into: int, number: int) -> None:
        self.url = url
        self.number = number
        self._into = into
        self._made: dict[str, Any] = {}
        self.store: Any = None

    def _tell(self, what: dict[str, Any]) -> None:
        os.write(self._into, (json.dumps(what) + "\n").encode())

    def call(self, change: dict[str, Any], do: Callable[[], Any]) -> Any:
        """Runs one call around which the change is told."""
        self._tell(change)
        result = do()
        self._tell({"done": True})
        return result

    def connect(self) -> None:
        """Opens the store."""
        self.store = self.call({}, lambda: celeriac.connect(self.url))

    def queue(self, name: str = "q", **options: Any) -> Any:
        """The queue, opened at its first use."""
        if name not in self._made:
            self._made[name] = self.call({}, lambda: self.store.queue(name, **options))
        return self._made[name]

    def cache(self, name: str = "c") -> Any:
        """The cache, opened at its first use."""
        if name not in self._made:
            make = self.store.table if name.startswith("table") else self.store.cache
            self._made[name] = self.call({}, lambda: make(name))
        return self._made[name]

    def put(self, body: str, size: int = 0, **options: Any) -> Any:
        """Puts a message that is called `body` and the number of this victim, with `size` bytes;
        its id."""
        queue = self.queue()
        name = f"{body}.{self.number}"
        return self.call({"put": name}, lambda: queue.put(fill(name, size), **options))

    def get(self, timeout: float = 0) -> Any:
        """Reserves a message."""
        queue = self.queue()
        message = self.call({}, lambda: queue.get(timeout))
        if message is None:
            raise AssertionError("nothing to get")
        return message

    def take_all(self) -> None:
        """Acknowledges all that come until none comes for a moment."""
        queue = self.queue()
        while (message := self.call({}, lambda: queue.get(0.1))) is not None:
            self.ack(message)

    def ack(self, message: Any) -> None:
        """Acknowledges it."""
        self.call({"ack": whole(message.body)}, message.ack)

    def nack(self, message: Any, delay: float = 0, reason: str | None = None) -> None:
        """Gives it back."""
        self.call({}, lambda: message.nack(delay, reason))

    def set(self, key: str, value: Any, space: str = "c", how: str = "set") -> None:
        """Stores a value; `how` may be add or replace too, where it stores."""
        store = getattr(self.cache(space), how)
        self.call({"set": [space, key, value]}, lambda: store(key, value))

    def incr(self, key: str, old: int, space: str = "c") -> None:
        """Adds one to what is `old`."""
        cache = self.cache(space)
        self.call({"set": [space, key, old + 1]}, lambda: cache.incr(key))

    def delete(self, key: str, space: str = "c") -> None:
        """Removes a key."""
        cache = self.cache(space)
        self.call({"set": [space, key, None]}, lambda: cache.delete(key))


def fill(body: str, size: int) -> str:
    """A body that whole() recognises."""
    return f"{body}|{size}|" + "x" * size


def whole(raw: bytes) -> str:
    """The name inside a body. AssertionError when it is torn."""
    text = raw.decode("ascii", "replace")
    name, size, rest = text.split("|")
    if rest != "x" * int(size):
        raise AssertionError(f"torn body: {text[:80]}")
    return name


@dataclass
class Allowed:
    """What may be found: messages by name, keys with their values (None = absent), limits."""

    messages: dict[str, set[bool]] = field(default_factory=dict)
    keys: dict[tuple[str, str], set[Any]] = field(default_factory=dict)
    limits: dict[str, set[int]] = field(default_factory=dict)  # what is left of each key's
    concurrencies: dict[str, int] = field(default_factory=dict)  # the limit of each name
    samples: dict[str, set[float]] = field(default_factory=dict)  # of metrics; absent = 0
    gone: bool = False  # the store may have been destroyed

    def take(self, told: list[dict[str, Any]]) -> None:
        """What one process told, in its order."""
        for number, change in enumerate(told):
            if change.get("done"):
                continue
            done = number + 1 < len(told) and bool(told[number + 1].get("done"))
            self._change(change, done)

    def _change(self, change: dict[str, Any], done: bool) -> None:
        def settle(states: dict[Any, set[Any]], which: Any, before: Any, after: Any) -> None:
            states[which] = {after} if done else states.get(which, {before}) | {after}

        if "put" in change:
            settle(self.messages, change["put"], False, True)
        if "ack" in change:
            settle(self.messages, change["ack"], True, False)
        if "purge" in change:
            for name in self.messages:
                settle(self.messages, name, True, False)
        if "set" in change:
            space, key, value = change["set"]
            settle(self.keys, (space, key), None, value)
        if "left" in change:
            key, left = change["left"]
            settle(self.limits, key, 10, left)
        if "concurrency" in change:
            name, limit = change["concurrency"]
            self.concurrencies[name] = limit
        for sample, amount in change.get("added", {}).items():
            was = self.samples.get(sample, {0.0})
            self.samples[sample] = {v + amount for v in was} | (set() if done else was)
        for sample, value in change.get("shown", {}).items():
            settle(self.samples, sample, 0.0, value)
        if "clear" in change:
            for space, key in self.keys:
                if space == change["clear"]:
                    settle(self.keys, (space, key), None, None)
        if "evict" in change:  # even when done: anything may be gone
            for (space, _), values in self.keys.items():
                if space == change["evict"]:
                    values.add(None)
        if "destroy" in change:
            self.gone = True


@dataclass
class End:
    """How a process ended."""

    killed: bool
    told: list[dict[str, Any]]
    passed: list[str]


Story = Callable[[Victim], None]


def run(url: str, story: Story, point: str | None, nth: int = 1) -> End:
    """Runs a story in a forked process that dies at the nth passage of `point`; with point None it
    lives, and says which points it passed; "end": it is killed when the story ends."""
    out, into = os.pipe()
    number = next(_numbers)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(out)
            armed = point if point not in (None, "end") else "none.none.none"
            _core.arm_crash_point(armed, nth, "kill" if armed == point else "count")
            victim = Victim(url, into, number)  # kept: its end would close the store
            story(victim)
            if point == "end":
                os.kill(os.getpid(), signal.SIGKILL)
            passed = json.dumps({"passed": _core.crash_points_passed()})
            os.write(into, passed.encode() + b"\n")
            status = 0
        except BaseException:
            os.write(into, (json.dumps({"error": traceback.format_exc()}) + "\n").encode())
        finally:
            os._exit(status)
    os.close(into)
    return _follow(pid, out)


def _follow(pid: int, out: int) -> End:
    text = b""
    deadline = time.monotonic() + PATIENCE
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([out], [], [], left)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.close(out)
            raise AssertionError(f"a process hangs; it told {text.decode()[-500:]}")
        data = os.read(out, 65536)
        if not data:
            break
        text += data
    os.close(out)
    _, status = os.waitpid(pid, 0)
    told = [json.loads(line) for line in text.decode().splitlines()]
    for line in told:
        if "error" in line:
            raise AssertionError(line["error"])
    passed = next((line["passed"] for line in told if "passed" in line), [])
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    if not killed and status != 0:
        raise AssertionError(f"ended with status {status:#x}")
    return End(killed, [line for line in told if "passed" not in line], passed)
