"""What publishing raises when the store can't take a message, as Celery's users expect it.

``task.delay()`` is documented to raise ``kombu.exceptions.OperationalError`` when a message can't
be sent, and that is what projects catch. kombu makes one of a transport's connection and channel
errors, but tries those again first, channel errors without a pause. That would be wrong here: a
store that is full stays full for the next milliseconds, and the core has waited already for a lock
that was not to be had. So these errors are none of the two kinds. They are raised at once, and are
both: celeriac's error and an ``OperationalError``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from kombu.exceptions import OperationalError

from celeriac import errors

__all__ = ["LockTimeout", "NotEnoughMemory", "QueueFull", "operational"]

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class QueueFull(errors.QueueFull, OperationalError):
    """A message could not be sent: its queue, or the store, is full."""


class NotEnoughMemory(errors.NotEnoughMemory, OperationalError):
    """A message could not be sent: the store, or its file system, is full."""


class LockTimeout(errors.LockTimeout, OperationalError):
    """A message could not be sent: a process was stopped while it held a part of the store."""


def operational(call: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """The call, raising the errors above in place of celeriac's of the same names."""

    @functools.wraps(call)
    def wrapped(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        try:
            return call(*args, **kwargs)
        except errors.QueueFull as error:
            raise QueueFull(str(error)) from error
        except errors.NotEnoughMemory as error:
            raise NotEnoughMemory(str(error)) from error
        except errors.LockTimeout as error:
            raise LockTimeout(str(error)) from error

    return wrapped
