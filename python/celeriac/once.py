"""``@lock_once``: a function that runs at most once at a time on the host, whoever calls it.

::

    @celeriac.lock_once(key="report:{day}")
    def report(day): ...

    class Command(BaseCommand):
        @celeriac.lock_once()              # cron starts it again while the last one still works
        def handle(self, *args, **options): ...

A call that finds another at work does nothing: it says so in a line, and gives ``skipped``. No PID
file is left behind, whatever happens: the lock ends with the process.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from celeriac import aio_locks, call_keys, checks
from celeriac import store as stores
from celeriac.errors import ConfigurationError
from celeriac.locks import Lock

Key = str | Callable[..., str] | None


class Keys:
    """The lock's name for a call: a template, a callable, or the function's own name."""

    def __init__(self, function: Callable[..., Any], key: Key, arguments: bool) -> None:
        self._arguments = call_keys.Arguments(function)
        self._key = key
        self._all = arguments
        self._name = ""
        if isinstance(key, str):
            self._arguments.check(key, "key")
        elif key is None:
            self._name = call_keys.own_name(function)
        elif not callable(key):
            raise TypeError(f"key= is a template or a callable, not {type(key).__name__}")

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The name for these arguments. Raises TypeError."""
        if callable(self._key):
            return checks.text(self._key(*args, **kwargs), "what key= makes")
        if self._key is None and not self._all:
            return self._name
        named = self._arguments.named(args, kwargs)
        if self._key is not None:
            return call_keys.fill(self._key, named)
        return call_keys.derived(self._name, named)


def say(text: str, args: tuple[Any, ...]) -> None:
    """To the command's own output, when there is one, or else to standard error."""
    out: Any = getattr(args[0], "stdout", None) if args else None
    if hasattr(out, "write") and hasattr(args[0], "handle"):
        out.write(text)  # Django's adds the line's end
    else:
        print(text, file=sys.stderr)


def opened(store: Any) -> Any:
    """The store that is meant. Raises ConfigurationError when there is none."""
    if store is None:
        try:
            return stores.get_default()
        except ConfigurationError:
            backend = _django_store()
            if backend is None:
                raise
            return backend
    if hasattr(store, "lock"):
        return getattr(store, "sync", store)
    if callable(store):
        return opened(store())
    raise TypeError(f"store= is a store or a function that gives one, not {type(store).__name__}")


def _django_store() -> Any:
    """That of Django's default cache, if it is ours."""
    if "django" not in sys.modules:
        return None
    from django.conf import settings

    if not settings.configured:
        return None
    from django.core.cache import caches

    return getattr(caches["default"], "store", None)


def give(skipped: Any) -> Any:
    """What a call gives that did not run."""
    if isinstance(skipped, BaseException) or (
        isinstance(skipped, type) and issubclass(skipped, BaseException)
    ):
        raise skipped
    return skipped


def _who(lock: Lock) -> str:
    owner = lock.owner
    return "" if owner is None else f" in process {owner.pid} ({owner.command})"


def lock_once(
    key: Key = None,
    *,
    store: Any = None,
    timeout: float | None = 0,
    ttl: float | None = None,
    skipped: Any = None,
    message: Callable[[str], object] | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let at most one call of a function run at a time, in all processes of the host.

    :param key: the lock's name: a template over the arguments (``"report:{day}"``), a callable that
        takes them, or None: the function's module and qualified name, whatever the arguments.
    :param store: a store, or a function that gives one; by default the one of
        ``celeriac.set_default()``, or Django's default cache's.
    :param timeout: seconds to wait for the other call to end; 0: not at all; None: for ever.
    :param ttl: seconds after which the lock ends even though its process lives. A call that took
        longer raises LockLost at its end.
    :param skipped: what a call gives that did not run; an exception's class or instance is raised.
    :param message: is given a line that says so, instead of the standard output of a management
        command, or standard error.

    For sync and async functions, and methods. Raises ConfigurationError for a template that the
    function's arguments can't fill, and for functions that have no name of their own.
    """
    if timeout is not None:
        checks.limited(timeout, "timeout", 0)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        keys = Keys(function, key, False)

        def lock_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Lock:
            made: Lock = opened(store).lock(keys.of(args, kwargs), ttl)
            return made

        def skip(lock: Lock, args: tuple[Any, ...]) -> Any:
            text = f"{lock.name} is running already{_who(lock)}: skipped"
            (message or functools.partial(say, args=args))(text)
            return give(skipped)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            lock = lock_of(args, kwargs)
            if not lock.acquire(timeout):
                return skip(lock, args)
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                lock.__exit__(type(error), error, None)
                raise
            lock.release()
            return result

        @functools.wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            lock = aio_locks.AsyncLock(lock_of(args, kwargs))
            if not await lock.acquire(timeout):
                return skip(lock.sync, args)
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                await lock.__aexit__(type(error), error, None)
                raise
            await lock.release()
            return result

        return call_async if inspect.iscoroutinefunction(function) else call

    return decorate
