"""``RateLimit``: at most so many runs of a task in so much time, over all workers of the host.

::

    @app.task
    @RateLimit("60/min")
    def call_openrouter(prompt): ...

    @app.task(bind=True)
    @RateLimit("5/s", key="tenant:{tenant}")           # each tenant has a limit of its own
    def send(self, tenant, text): ...

Celery's own ``rate_limit`` counts in each worker for itself, and what is over it waits in the
worker. Here a task that is over the limit goes back to the broker at once, with a delay, and the
worker takes another. It is the same task: its id, its place in a chain or chord, how often it was
retried. Only its result's state says RETRY meanwhile.

Tasks that come back at once would all find one place free, and all but one go back again. So the
delay grows with how often a task was postponed, and is jittered; a long line costs each task about
as many deliveries as its length has bits.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable
from typing import Any

from celery import current_app, current_task
from celery.exceptions import Reject, Retry

from celeriac import call_keys, checks, once
from celeriac.celery.once import store_of
from celeriac.errors import ConfigurationError
from celeriac.limits import Limiter
from celeriac.rates import parse_rates

__all__ = ["RateLimit"]

#: In a task's headers: how often it was postponed.
POSTPONED = "celeriac_postponed"

#: Times the limiter's own delay, at most.
MOST_DOUBLINGS = 6


class RateLimit:
    """A decorator, to stand below ``@app.task``.

    :param rate: such as ``"60/min"``, or a list of which all must allow it.
    :param key: a template over the task's arguments, or a callable that takes them: what has a
        limit of its own. None: all runs of the task together.
    :param burst: how many may run at once after a pause; by default the rate's own count.
    :param algorithm: as of :meth:`celeriac.Store.limiter`.
    :param name: tasks whose limits have one name share it; by default the function's own.
    :param cost: what a run takes.
    :param on_error: ``"allow"`` or ``"deny"`` while the store is away.
    :param store: a :class:`celeriac.Store`, or a function that gives one; by default the broker's,
        or else the result backend's.

    Raises ConfigurationError for a rate or a template that makes no sense. The function, called by
    itself, isn't limited. Exact over all processes; a worker that is killed has taken its place.
    """

    def __init__(
        self,
        rate: str | Iterable[str],
        *,
        key: once.Key = None,
        burst: int | None = None,
        algorithm: str = "gcra",
        name: str | None = None,
        cost: int = 1,
        on_error: str = "allow",
        store: Any = None,
    ) -> None:
        self._rates = rate if isinstance(rate, str) else list(rate)
        parse_rates(self._rates, burst, algorithm)
        checks.whole(cost, "cost", 1)
        if on_error not in ("allow", "deny"):
            raise ConfigurationError(f"on_error={on_error!r}: 'allow' or 'deny'")
        self._options = {"burst": burst, "algorithm": algorithm, "on_error": on_error}
        self._key, self._name, self._cost, self._store = key, name, cost, store
        self._made: Limiter | None = None

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        keys = once.Keys(function, self._key, False)
        name = self._name or call_keys.own_name(function)

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            task = current_task._get_current_object() if current_task else None
            if task is not None and not task.request.called_directly:
                bound = bool(args) and args[0] is task
                key = keys.of((None, *args[1:]) if bound and self._key is None else args, kwargs)
                decision = self._limiter(name).hit(key, self._cost)
                if not decision:
                    _postpone(task, decision.retry_after)
            return function(*args, **kwargs)

        return run

    def _limiter(self, name: str) -> Limiter:
        if self._made is None:
            where = self._store
            store = store_of(current_app, "RateLimit") if where is None else once.opened(where)
            self._made = store.limiter(self._rates, name=f"celery task {name}", **self._options)
        return self._made


def _postpone(task: Any, seconds: float) -> None:
    """Send the task again, with a delay. Raises Retry; Reject when it couldn't be sent."""
    request = task.request
    headers = dict(request.headers or {})
    times = int(headers.get(POSTPONED, 0))
    delay = seconds * random.uniform(1, 2 ** min(times, MOST_DOUBLINGS))
    headers[POSTPONED] = times + 1
    again = task.signature_from_request(
        request, request.args, request.kwargs, countdown=delay, retries=request.retries
    )
    again.options["headers"] = {**(again.options.get("headers") or {}), **headers}
    try:
        again.apply_async()
    except Exception as error:
        raise Reject(error, requeue=True) from error
    raise Retry("over its rate limit", when=delay)
