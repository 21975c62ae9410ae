"""`get_or_set` on an event loop: `fill.py`'s rules, with a driver that never blocks the loop.

The looks and the flights' steps are plain calls: they don't wait. What can wait is done elsewhere:
an async function is awaited; a plain one, which may block, runs in a thread; and the sleep until
another's flight has landed is a daemon thread's. Tasks of one loop that wait for the same key share
one such thread: it wakes them all, and each looks for itself.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from celeriac.cache_entries import MISSING
from celeriac.errors import CeleriacError
from celeriac.fill import Fill, Step
from celeriac.single_flight import Place

InThread = Callable[..., Awaitable[Any]]
Sleeps = dict[Place, "asyncio.Future[None]"]

_SLICE: Final = 60.0  # seconds after which a sleeping thread looks whether anybody waits for it

_sleeps: WeakKeyDictionary[asyncio.AbstractEventLoop, Sleeps] = WeakKeyDictionary()


async def get_or_set(
    fill: Fill, default: Any, in_thread: InThread = asyncio.to_thread, *, again: bool = False
) -> Any:
    """Drive a call on the running loop.

    :param default: a value, a function, an async function, or anything to await.
    :param in_thread: runs a plain function where it may block.
    :param again: whether a value that can't be stored on the loop's thread is tried in a thread.
    """
    if fill.look():
        if inspect.iscoroutine(default):
            default.close()
        return fill.answer
    if not callable(default) and not inspect.isawaitable(default):
        fill.begin()
        return await _store(fill, default, in_thread, again)
    fill.prepare()
    while True:
        seen = fill.seen()
        step = fill.step()
        if step is Step.GIVE:
            return fill.answer
        if step is Step.COMPUTE or not await _sleep(fill, seen):
            break
    with fill:
        if fill.look_again():
            return fill.answer
        fill.begin()
        try:
            value = await result(default, in_thread)
        except Exception as error:
            value = fill.failed(error)
            if value is MISSING:
                raise
            return value
        return await _store(fill, value, in_thread, again)


async def result(default: Any, in_thread: InThread = asyncio.to_thread) -> Any:
    """What a function, an async function or an awaitable gives."""
    if callable(default):
        if inspect.iscoroutinefunction(default) or inspect.iscoroutinefunction(
            getattr(default, "__call__", None)  # noqa: B004 - an object whose call is async
        ):
            default = default()
        else:
            default = await in_thread(default)
    while inspect.isawaitable(default):
        default = await default
    return default


async def sleep_in_thread(wait: Callable[[float | None], bool], timeout: float | None) -> bool:
    """``wait(seconds)`` in a daemon thread; False when `timeout` seconds are over.

    A task that is cancelled leaves the thread behind for at most a minute.
    """
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else time.monotonic() + timeout
    ended: asyncio.Future[bool] = loop.create_future()
    left_alone = threading.Event()

    def tell(changed: bool, error: Exception | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(changed)
        else:
            ended.set_exception(error)

    def sleep() -> None:
        changed, error = False, None
        try:
            while not changed and not left_alone.is_set():
                left = None if deadline is None else deadline - time.monotonic()
                changed = wait(_SLICE if left is None else max(0.0, min(left, _SLICE)))
                if left is not None and left <= _SLICE:
                    break
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell, changed, error)

    threading.Thread(target=sleep, name="celeriac-wait", daemon=True).start()
    try:
        return await ended
    finally:
        left_alone.set()


async def _store(fill: Fill, value: Any, in_thread: InThread, again: bool) -> Any:
    try:
        return fill.store(value)
    except Exception:
        if not again:
            raise
    return await in_thread(fill.store, value)


async def _sleep(fill: Fill, seen: int) -> bool:
    """`Fill.wait` without blocking; False when the time is over."""
    left = fill.remaining
    if fill.place is None or (left is not None and left <= 0):
        return False
    loop = asyncio.get_running_loop()
    sleeps = _sleeps.setdefault(loop, {})
    ended = sleeps.get(fill.place)
    if ended is None:
        ended = sleeps[fill.place] = loop.create_future()
        _start_sleeper(fill, seen, loop, sleeps, fill.place, ended)
    # The sleep of another task may be over before our time is: then we look, and sleep again.
    await asyncio.wait([ended], timeout=left)
    return True


def _start_sleeper(
    fill: Fill,
    seen: int,
    loop: asyncio.AbstractEventLoop,
    sleeps: Sleeps,
    place: Place,
    ended: asyncio.Future[None],
) -> None:
    def tell() -> None:
        sleeps.pop(place, None)
        if not ended.done():
            ended.set_result(None)

    def sleep() -> None:
        with suppress(CeleriacError):  # the store was closed meanwhile: who waits will hear of it
            fill.wait(seen)
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=sleep, name="celeriac-wait", daemon=True).start()
