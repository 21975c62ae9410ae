"""``@lock_once``: a task of which one runs at a time, on all workers of the host.

::

    @app.task
    @lock_once()                       # one for each combination of arguments
    def rebuild(shop_id): ...

    @app.task(bind=True)
    @lock_once(key="rebuild:{shop_id}", retry=10)      # try again in ten seconds
    def rebuild(self, shop_id, force=False): ...

A task that finds another of the same key at work is done at once: its result is ``skipped``. With
``retry=`` it goes back to the broker with that delay instead, again and again or
``max_retries=`` times. The lock is held by the process that runs the
task: when that is killed, the lock is free at once, and the task that the broker delivers again
finds it so.

The lock lies in the store of the broker, or else of the result backend; ``store=`` names another.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from celery import current_app, current_task
from celery.utils.log import get_task_logger

from celeriac import checks, once
from celeriac.celery.broker import open_broker
from celeriac.celery.options import BROKER_OPTIONS, checked
from celeriac.celery.transport import Transport, store_url
from celeriac.errors import ConfigurationError
from celeriac.store import get_default

__all__ = ["lock_once", "store_of"]

logger = get_task_logger(__name__)

_ENDLESS = 2**31


def store_of(app: Any, what: str = "lock_once") -> Any:
    """The store in which the app's locks and limits lie. Raises ConfigurationError without one."""
    with app.connection_for_write() as connection:
        if issubclass(connection.get_transport_cls(), Transport):
            options = checked(connection.transport_options, BROKER_OPTIONS)
            return open_broker(store_url(connection), options).store
    table = getattr(app.backend, "store", None)
    if table is not None:
        return table
    try:
        return get_default()
    except ConfigurationError:
        raise ConfigurationError(
            f"{what} has no store: neither broker_url nor result_backend is celeriac+shm://NAME; "
            "give store=, or call celeriac.set_default(store)"
        ) from None


def lock_once(
    key: once.Key = None,
    *,
    store: Any = None,
    timeout: float = 0,
    ttl: float | None = None,
    skipped: Any = None,
    retry: float | None = None,
    max_retries: int | None = None,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let one task of a key run at a time; to stand below ``@app.task``.

    :param key: a template over the task's arguments (``"rebuild:{shop_id}"``), a callable that
        takes them, or None: the function's name and all arguments, of a bound task without self.
    :param store: a :class:`celeriac.Store`, or a function that gives one.
    :param timeout: seconds that a task waits in the worker for another to end; 0: none.
    :param ttl: seconds after which the lock ends even though its process lives.
    :param skipped: the result of a task that did not run; an exception's class or instance is
        raised, `celery.exceptions.Ignore` for instance.
    :param retry: seconds after which a task that found another at work is tried again.
    :param max_retries: how often, at most; None: without end.

    Raises ConfigurationError for a template that the arguments can't fill, TypeError and
    ValueError for the rest. The function, called by itself, is the same without Celery.
    """
    checks.limited(timeout, "timeout", 0)
    if retry is not None:
        checks.limited(retry, "retry", 0)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        keys = once.Keys(function, key, True)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            task = current_task._get_current_object() if current_task else None
            bound = bool(args) and task is not None and args[0] is task
            name = keys.of((None, *args[1:]) if bound and key is None else args, kwargs)
            where = once.opened(store) if store is not None else store_of(current_app)
            lock = where.lock(f"celery:{name}", ttl)
            if not lock.acquire(timeout):
                logger.info("%s is running already: skipped", name)
                if retry is not None and task is not None and not task.request.called_directly:
                    most = _ENDLESS if max_retries is None else max_retries
                    raise task.retry(countdown=retry, max_retries=most)
                return once.give(skipped)
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                lock.__exit__(type(error), error, None)
                raise
            lock.release()
            return result

        return run

    return decorate
