"""How the handles of :mod:`celeriac.aio` come by their calls: each is that of the object behind."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Concatenate, ParamSpec, TypeVar

_Twin = TypeVar("_Twin")
_Self = TypeVar("_Self", bound="Handle")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Handle:
    """A handle may be awaited, which gives the handle: making one doesn't block on this host."""

    def __await__(self: _Self) -> Generator[Any, None, _Self]:
        yield from asyncio.sleep(0).__await__()
        return self


def twin(
    call: Callable[Concatenate[Any, _Arguments], _Result],
) -> Callable[Concatenate[Any, _Arguments], Coroutine[Any, Any, _Result]]:
    """The same call of the object behind, which waits for nothing, to be awaited."""
    name = call.__name__

    async def called(self: Any, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        result: _Result = getattr(self.sync, name)(*args, **kwargs)
        return result

    functools.update_wrapper(called, call)
    return called


def writing(
    call: Callable[Concatenate[Any, _Arguments], _Result],
) -> Callable[Concatenate[Any, _Arguments], Coroutine[Any, Any, _Result]]:
    """The same call of the queue behind; in a thread when it waits for a disk."""
    name = call.__name__

    async def called(self: Any, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        result: _Result = await done(
            self, functools.partial(getattr(self.sync, name), *args, **kwargs)
        )
        return result

    functools.update_wrapper(called, call)
    return called


async def done(queue: Any, call: Callable[[], _Result]) -> _Result:
    """What the call gives; it is in a thread when the queue's changes wait for a disk."""
    return await asyncio.to_thread(call) if queue.sync._on_disk else call()


def maker(
    call: Callable[Concatenate[Any, _Arguments], Any], kind: Callable[[Any], _Twin]
) -> Callable[Concatenate[Any, _Arguments], _Twin]:
    """The same call of the store behind, whose result becomes a handle for asyncio."""

    def make(self: Any, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Twin:
        return kind(call(self.sync, *args, **kwargs))

    functools.update_wrapper(make, call)
    return make
