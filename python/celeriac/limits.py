"""Rate limits, shared by every process of the store: ``store.limiter("100/s")``."""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import sys
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, NamedTuple, TypeVar

from celeriac import _core, call_keys, checks, green
from celeriac._core import Limiter as CoreLimiter
from celeriac._core import Store as CoreStore
from celeriac.errors import CeleriacError, ConfigurationError, RateLimited
from celeriac.rates import Rate, core_rate, parse_rates

Key = str | bytes
_Function = TypeVar("_Function", bound=Callable[..., Any])
_log = logging.getLogger("celeriac.limits")
_RETRY: Final = 1.0
"""Seconds after which to ask a store again that couldn't answer."""
_QUIET: Final = 10.0
"""Seconds in which a limiter says once that its store can't answer."""


class Decision(NamedTuple):
    """What a limiter decided; true when it allows.

    Of several rates it tells of the one that refuses longest, or else of the one that has the least
    left. Times are seconds, good for ``Retry-After`` (round up) and ``RateLimit`` headers.
    """

    allowed: bool
    """Whether it may go on. Always true of a limiter with ``shadow=True``."""
    limit: int
    """The most that the rate gives at once: its burst, or the count of a window."""
    remaining: int
    """How much could be taken at once, now."""
    retry_after: float
    """Until it would be allowed; 0.0 = it is. In shadow mode what a refusal would have said."""
    reset_after: float
    """Until nothing of what was used counts any more."""
    policy: str
    """The rate's text; a `str` that also has ``amount``, ``period`` (s) and ``burst``."""

    def __bool__(self) -> bool:
        return self.allowed


_core.set_decision_type(Decision)


class Limiter:
    """At most so much in so much time, for each key, over all processes of the store.

    Made by :meth:`celeriac.Store.limiter`. A key is str or bytes, of any length: it is hashed. Its
    state is one 64-bit word for each rate, in memory of its own that no cache's pressure touches;
    keys whose state is that of a fresh one give their room to others.

    ``gcra`` is the generic cell rate algorithm (ITU-T I.371), as redis-cell and nginx have it:
    ``burst`` at once, then one each period/count. ``token_bucket`` is the same seen from the other
    side: a bucket of ``burst`` tokens that fills by count each period. ``sliding_window`` counts
    this window and, by the share of it that a period ending now still covers, the one before
    (Cloudflare's way). ``fixed_window`` begins with a key's first hit and counts until it ends.

    Thread-safe, fork-safe, exact over all processes. Pickles as its store's URL and its options.
    Crash-safe: a process killed inside has taken of all rates or of none.
    """

    __slots__ = ("_again", "_complained", "_core", "_hit", "_on_error", "_peek", "name", "rates")

    def __init__(
        self,
        core: CoreLimiter,
        name: str,
        rates: list[Rate],
        on_error: str,
        again: Callable[[], Limiter],
    ) -> None:
        self._core = core
        self._hit = core.hit
        self._peek = core.peek
        self._on_error = on_error
        self._again = again
        self._complained = -_QUIET
        self.name = name
        """Limiters of one name share the state of their keys."""
        self.rates = tuple(rates)
        """What it was made with."""

    def __repr__(self) -> str:
        return f"<Limiter {self.name!r}: {', '.join(self.rates)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._again, ()

    def hit(self, key: Key, cost: int = 1) -> Decision:
        """Take ``cost`` of all rates if all allow it, or of none: a refusal costs nothing.

        Raises ConfigurationError for a cost below 1, or above what can be taken at once; TypeError
        for a key that isn't str or bytes. When the store can't answer, ``on_error`` decides.
        """
        try:
            return self._hit(key, cost)
        except CeleriacError as error:
            return self._without_store(error)

    def peek(self, key: Key, cost: int = 1) -> Decision:
        """What hit() would decide, with nothing taken; ``remaining`` is what is there now."""
        try:
            return self._peek(key, cost)
        except CeleriacError as error:
            return self._without_store(error)

    def reset(self, key: Key) -> None:
        """Forget what the key has used, of all rates."""
        self._core.reset(key)

    def refund(self, key: Key, cost: int = 1) -> None:
        """Give ``cost`` back, to all rates, as far as the key has used it: for what was counted
        and didn't happen."""
        self._core.refund(key, cost)

    def wait(self, key: Key, cost: int = 1, timeout: float | None = None) -> Decision:
        """Hit, and sleep until it is allowed; the Decision, a falsy one when ``timeout`` seconds
        are over (None: no limit; 0 doesn't wait).

        Sleeps as long as the last refusal said, and asks again. Who waits has no place in a line: a
        newcomer may be faster.
        """
        ends = _deadline(timeout)
        while True:
            decision = self.hit(key, cost)
            pause = _pause(decision, ends)
            if pause <= 0:
                return decision
            _sleep(pause)

    def limit(
        self,
        key: Key | Callable[..., Key] = "",
        *,
        cost: int = 1,
        timeout: float | None = None,
    ) -> Limit:
        """A decorator and context manager that waits, then goes on: for outgoing calls.

        ``@limiter.limit(key="tenant:{tenant}")`` for plain and async functions, ``with
        limiter.limit("openrouter"):``, ``async with``. Raises RateLimited when it isn't allowed
        within ``timeout`` seconds (None: waits as long as it takes; 0: raises at once).

        :param key: of a function: a template over its arguments, or a callable that takes them; a
            text without braces is one key for all calls. In ``with`` it is the key itself.
        """
        return Limit(self, key, cost, timeout)

    def _without_store(self, error: CeleriacError) -> Decision:
        """The decision of ``on_error``. Raises what the caller did wrong."""
        if isinstance(error, ConfigurationError):
            raise error
        now = time.monotonic()
        if now - self._complained >= _QUIET:
            self._complained = now
            _log.warning(
                "limiter %r can't ask its store, and on_error=%r: %s",
                self.name,
                self._on_error,
                error,
            )
        return undecided(self.rates[0], self._on_error)


def undecided(rate: Rate, on_error: str) -> Decision:
    """What `on_error` decides while a store can't."""
    if on_error == "allow":
        return Decision(True, rate.burst, rate.burst, 0.0, 0.0, rate)
    return Decision(False, rate.burst, 0, _RETRY, 0.0, rate)


def _deadline(timeout: float | None) -> float | None:
    checks.check_ttl(timeout, "timeout")
    return None if timeout is None else time.monotonic() + timeout


def _pause(decision: Decision, ends: float | None) -> float:
    """Seconds to sleep before the next try; 0 = there is none."""
    if decision.allowed:
        return 0
    if ends is None:
        return max(decision.retry_after, 1e-6)
    return min(max(decision.retry_after, 1e-6), ends - time.monotonic())


def _sleep(seconds: float) -> None:
    if green.patched():
        sys.modules["gevent"].sleep(seconds)
    else:
        time.sleep(seconds)


async def wait_async(limiter: Limiter, key: Key, cost: int, timeout: float | None) -> Decision:
    """Limiter.wait() that lets other tasks run meanwhile."""
    ends = _deadline(timeout)
    while True:
        decision = limiter.hit(key, cost)
        pause = _pause(decision, ends)
        if pause <= 0:
            return decision
        await asyncio.sleep(pause)


class Limit:
    """What :meth:`Limiter.limit` returns: a decorator, ``with``, ``async with``."""

    __slots__ = ("_cost", "_key", "_limiter", "_timeout")

    def __init__(
        self,
        limiter: Limiter,
        key: Key | Callable[..., Key],
        cost: int,
        timeout: float | None,
    ) -> None:
        if not isinstance(key, (str, bytes)) and not callable(key):
            raise TypeError(f"key is str, bytes or a callable, not {type(key).__name__}")
        checks.check_ttl(timeout, "timeout")
        checks.whole(cost, "cost", 1)
        self._limiter = limiter
        self._key = key
        self._cost = cost
        self._timeout = timeout

    def _own_key(self) -> Key:
        if callable(self._key):
            raise TypeError(
                "a callable key is for decorated functions: `with` takes the key itself"
            )
        return self._key

    def _passed(self, decision: Decision) -> Decision:
        if decision:
            return decision
        error = RateLimited(
            f"limiter {self._limiter.name!r} refuses for another {decision.retry_after:.3f} s: "
            f"{decision.limit} at once of {decision.policy}, {decision.remaining} left"
        )
        error.decision = decision
        raise error

    def __enter__(self) -> Decision:
        return self._passed(self._limiter.wait(self._own_key(), self._cost, self._timeout))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    async def __aenter__(self) -> Decision:
        waited = wait_async(self._limiter, self._own_key(), self._cost, self._timeout)
        return self._passed(await waited)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def __call__(self, function: _Function) -> _Function:
        if not callable(function):
            raise TypeError(f"@limit decorates a function, not {type(function).__name__}")
        key_of = self._keys(function)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                key = key_of(args, kwargs)
                self._passed(await wait_async(self._limiter, key, self._cost, self._timeout))
                return await function(*args, **kwargs)

            return call_async  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self._passed(self._limiter.wait(key_of(args, kwargs), self._cost, self._timeout))
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    def _keys(self, function: Callable[..., Any]) -> Callable[[Any, Any], Key]:
        key = self._key
        if callable(key):
            make = key
            return lambda args, kwargs: make(*args, **kwargs)
        if isinstance(key, bytes) or "{" not in key:
            return lambda args, kwargs: key
        arguments = call_keys.Arguments(function)
        arguments.check(key, "key")
        template = key
        return lambda args, kwargs: call_keys.fill(template, arguments.named(args, kwargs))


def make_limiter(
    store: CoreStore,
    make: Callable[..., Limiter],
    rates: str | Iterable[str],
    *,
    burst: int | Iterable[int | None] | None,
    algorithm: str,
    name: str | None,
    on_error: str,
    shadow: bool,
) -> Limiter:
    """Store.limiter(), which is `make`: what a limiter is pickled as."""
    if not isinstance(rates, (str, bytes)) and isinstance(rates, Iterable):
        rates = list(rates)
    if not isinstance(burst, (str, bytes)) and isinstance(burst, Iterable):
        burst = list(burst)
    parsed = parse_rates(rates, burst, algorithm)
    if name is None:
        name = f"{algorithm} {', '.join(f'{rate} burst {rate.burst}' for rate in parsed)}"
    checks.text(name, "the name of a limiter").encode()
    if on_error not in ("allow", "deny"):
        raise ConfigurationError(f"on_error={on_error!r}: 'allow' or 'deny'")
    checks.yes_or_no(shadow, "shadow")
    core = store.limiter(
        name, [core_rate(rate, algorithm) for rate in parsed], list(parsed), shadow
    )
    again = functools.partial(
        make,
        rates,
        burst=burst,
        algorithm=algorithm,
        name=name,
        on_error=on_error,
        shadow=shadow,
    )
    return Limiter(core, name, parsed, "allow" if shadow else on_error, again)
