"""``@cached`` and ``@evict``: functions, methods and async functions.

    @celeriac.cached(ttl=60, key="product:{id}", tags=["catalogue"], stale=30)
    def product(id): ...

    @celeriac.evict("product:{product.id}", "products:*", tags=["catalogue"])
    def save(product): ...

    product.invalidate(7)       # remove what product(7) gave
    product.cache_key(7)        # "product:7"
    product.bypass(7)           # call the function, and leave the cache alone
    product.refresh(7)          # call the function, and keep the result

The cache is ``cache=`` (a `Cache`, an `AsyncCache`, a Django cache of ours, or a function that
gives one), else that of `celeriac.set_default`, else Django's default cache if that is one of ours.
It is looked up at each call, so that modules can be imported before there is a store.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import pickle
import sys
from collections.abc import Callable, Generator, Iterable
from types import CodeType, FrameType
from typing import Any, TypeVar

from celeriac import aio_fill, call_keys, checks
from celeriac.cache import USE_DEFAULT, Cache
from celeriac.errors import ConfigurationError
from celeriac.patterns import escape
from celeriac.store import Store, get_default

Key = str | Callable[..., str] | None
Tags = str | Iterable[str] | Callable[..., Iterable[str]]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_default: tuple[Store, Cache] | None = None  # the default store, and its cache


def default_cache() -> Any:
    """The cache that is used where none is named. Raises ConfigurationError when there is none."""
    global _default
    try:
        store = get_default()
    except ConfigurationError:
        return _djangos()
    kept = _default
    if kept is None or kept[0] is not store:
        kept = _default = (store, store.cache())
    return kept[1]


def _djangos() -> Any:
    if "django.core.cache" in sys.modules:
        from django.conf import settings

        if settings.configured:
            from django.core.cache import caches

            backend = caches["default"]
            if hasattr(backend, "invalidate") and hasattr(backend, "clear_prefix"):
                return backend
    raise ConfigurationError(
        "no default cache: call celeriac.set_default(store), give cache=, or let Django's default "
        "cache be celeriac.django.cache.CeleriacCache"
    )


def _resolved(cache: Any) -> Any:
    if cache is None:
        return default_cache()
    if hasattr(cache, "get_or_set"):
        return getattr(cache, "sync", cache)
    if isinstance(cache, Store):
        return cache.cache()
    if callable(cache):
        return _resolved(cache())
    raise TypeError(f"cache= is a cache or a function that gives one, not {type(cache).__name__}")


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or asyncio.iscoroutinefunction(function)


def _joined(prefix: str, key: str) -> str:
    return key if not prefix else f"{prefix}{'' if prefix.endswith(':') else ':'}{key}"


class _Answer(int):
    """What a call on an async function's cache gave: there already, and may be awaited."""

    def __await__(self) -> Generator[Any, None, int]:
        yield from ()
        return int(self)


class _Templates:
    """Templates and callables that make texts of a call's arguments."""

    def __init__(self, arguments: call_keys.Arguments, given: Any, what: str) -> None:
        self._arguments = arguments
        self._make: Callable[..., Iterable[str]] | None = given if callable(given) else None
        self._texts: tuple[str, ...] = ()
        if self._make is None:
            if not isinstance(given, Iterable):
                raise TypeError(f"{what}s are templates or a callable, not {type(given).__name__}")
            self._texts = (given,) if isinstance(given, str) else tuple(given)
            for text in self._texts:
                if not isinstance(text, str):
                    raise TypeError(f"{what} is a str, not {type(text).__name__}")
                arguments.check(text, what)

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        if self._make is not None:
            made = self._make(*args, **kwargs)
            return (made,) if isinstance(made, str) else tuple(made)
        if not self._texts:
            return ()
        named = self._arguments.named(args, kwargs)
        return tuple(call_keys.fill(text, named) for text in self._texts)


class CachedFunction:
    """A function whose results are cached; what ``@cached`` makes. See this module's text."""

    def __init__(
        self,
        function: Callable[..., Any],
        ttl: Any,
        key: Key,
        prefix: str,
        tags: Tags,
        cache: Any,
        options: dict[str, Any],
    ) -> None:
        if not callable(function):
            raise TypeError(
                f"@cached takes a function, not {type(function).__name__}: put it below "
                "@staticmethod, @classmethod and @property"
            )
        _check_no_generator(function, "has no value to keep")
        self._function = function
        self._arguments = call_keys.Arguments(function)
        self._key = key
        if isinstance(key, str):
            self._arguments.check(key, "key")
        elif key is None:
            self._name = call_keys.own_name(function)
        elif not callable(key):
            raise TypeError(f"key= is a template or a callable, not {type(key).__name__}")
        self._prefix = checks.text(prefix, "prefix")
        self._tags = _Templates(self._arguments, tags, "tag")
        self._cache = cache
        self._ttl = () if ttl is USE_DEFAULT else (ttl,)
        self._options = options
        self._bound: tuple[Any, ...] = ()
        self._is_async = _is_async(function)
        functools.update_wrapper(self, function)
        if self._is_async:
            _mark_async(self)

    def __get__(self, instance: object, owner: type | None = None) -> CachedFunction:
        """As a method: the same with ``self`` filled in."""
        if instance is None:
            return self
        bound = CachedFunction.__new__(CachedFunction)
        bound.__dict__.update(self.__dict__)
        bound._bound = (instance,)
        return bound

    def __repr__(self) -> str:
        return f"<cached {self._function!r}>"

    def __reduce__(self) -> str:
        name = getattr(self._function, "__qualname__", None)
        if not isinstance(name, str):
            raise pickle.PicklingError(f"{self!r} has no name that it could be pickled by")
        return name  # as a function pickles

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args = (*self._bound, *args)
        key = self._key_of(args, kwargs)
        compute = functools.partial(self._function, *args, **kwargs)
        if self._is_async:
            return self._call_async(key, compute, args, kwargs)
        options = {**self._options, "tags": self._tags(args, kwargs)}
        return _resolved(self._cache).get_or_set(key, compute, *self._ttl, **options)

    async def _call_async(
        self, key: str, compute: Callable[[], Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        cache = _resolved(self._cache)
        options = {**self._options, "tags": self._tags(args, kwargs)}
        if hasattr(cache, "aget_or_set"):
            return await cache.aget_or_set(key, compute, *self._ttl, **options)
        return await aio_fill.get_or_set(cache.fill(key, *self._ttl, **options), compute)

    def _key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if callable(self._key):
            key = self._key(*args, **kwargs)
            if not isinstance(key, str):
                raise TypeError(f"key= made a {type(key).__name__} for {self!r}, not a str")
        else:
            named = self._arguments.named(args, kwargs)
            if self._key is None:
                key = call_keys.derived(self._name, named)
            else:
                key = call_keys.fill(self._key, named)
        return _joined(self._prefix, key)

    def cache_key(self, *args: Any, **kwargs: Any) -> str:
        """The key under which the result for these arguments is kept."""
        return self._key_of((*self._bound, *args), kwargs)

    def invalidate(self, *args: Any, **kwargs: Any) -> Any:
        """Remove the result for these arguments; True when there was one.

        Of an async function it may be awaited."""
        removed = _resolved(self._cache).delete(self.cache_key(*args, **kwargs))
        return _Answer(removed) if self._is_async else removed

    def bypass(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself: nothing is read from the cache, nothing kept."""
        return self._function(*self._bound, *args, **kwargs)

    def refresh(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function, and keep its result in place of what there was."""
        args = (*self._bound, *args)
        keep = functools.partial(self._keep, self._key_of(args, kwargs), self._tags(args, kwargs))
        if not self._is_async:
            return keep(self._function(*args, **kwargs))

        async def call() -> Any:
            return keep(await self._function(*args, **kwargs))

        return call()

    def _keep(self, key: str, tags: tuple[str, ...], value: Any) -> Any:
        _resolved(self._cache).set(key, value, *self._ttl, tags=tags)
        return value


def _check_no_generator(function: object, why: str) -> None:
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{call_keys.name_of(function)}() is a generator: it {why}")


def _is_being_decorated(function: Any, caller: FrameType) -> bool:
    """Whether the line that calls a decorator is one of those above the function's body: a key
    that is a function is called by a line behind it, or is a lambda. CPython 3.10 gives the line of
    its `def`, so a function of nothing but a docstring isn't told there."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    if not isinstance(code, CodeType) or code.co_name == "<lambda>":
        return False
    first = code.co_firstlineno
    body = [line for _, _, line in code.co_lines() if line is not None and line > first]
    here = any(constant is code for constant in caller.f_code.co_consts)
    return here and first <= caller.f_lineno <= min(body, default=first)


def _mark_async(function: Any) -> None:
    """Let inspect and asyncio take a callable object for an async function."""
    if hasattr(inspect, "markcoroutinefunction"):  # CPython 3.12
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]


def cached(
    ttl: Any = USE_DEFAULT,
    key: Key = None,
    *,
    prefix: str = "",
    tags: Tags = (),
    cache: Any = None,
    stale: float = 0,
    stale_on_error: float = 0,
    early: float = 0,
    lock: bool = True,
    wait: float | None = 5.0,
) -> Any:
    """Keep the results of a function; also without parentheses.

    :param ttl: seconds, None for ever; not given, the cache's own.
    :param key: a template over the arguments, a callable that takes them, or None: derived from
        the function's module, qualified name and all arguments. Lambdas, bound methods and
        partials have no name that is theirs alone: they need a key. A function inside of another
        is told from its twins by its line and the values that it closes over.
    :param prefix: stands before the key, with a colon between.
    :param tags: templates over the arguments, or a callable that takes them.
    :param cache: a cache or a function that gives one; see this module's text.

    The rest is that of :meth:`celeriac.Cache.get_or_set`. Raises ConfigurationError for a template
    with names that are no arguments, and for a function that needs a key; a derived key raises
    TypeError at the call for an argument without a value of its own.
    """
    if callable(ttl):
        return CachedFunction(ttl, USE_DEFAULT, None, "", (), None, {})
    if ttl is not USE_DEFAULT:
        checks.check_ttl(ttl)
    options: dict[str, Any] = {
        "stale": stale,
        "stale_on_error": stale_on_error,
        "early": early,
        "lock": lock,
        "wait": wait,
    }
    for name in ("stale", "stale_on_error", "early", *(() if wait is None else ("wait",))):
        checks.seconds(options[name], name)

    def decorate(function: Callable[..., Any]) -> CachedFunction:
        return CachedFunction(function, ttl, key, prefix, tags, cache, options)

    return decorate


def evict(
    *keys: str | Callable[..., str],
    tags: Tags = (),
    prefix: str = "",
    cache: Any = None,
    before: bool = False,
) -> Callable[[_Function], _Function]:
    """Remove entries when a function has returned; with ``before``, before it is called.

    :param keys: templates over the arguments, or callables that take them. A template whose own
        text has glob characters removes all keys that match (``"products:*"``).
    :param tags: templates of tags to invalidate, or a callable.

    A function that raises evicts nothing, unless ``before``.
    """

    checks.text(prefix, "prefix")
    if len(keys) == 1 and _is_being_decorated(keys[0], sys._getframe(1)):
        raise TypeError('@evict without parentheses: it takes the keys to remove, @evict("key")')

    def decorate(function: _Function) -> _Function:
        if not callable(function):
            raise TypeError(f"@evict takes a function, not {type(function).__name__}")
        _check_no_generator(function, "would evict before its body runs")
        arguments = call_keys.Arguments(function)
        for key in keys:
            if isinstance(key, str):
                arguments.check(key, "key")
            elif not callable(key):
                raise TypeError(f"a key is a template or a callable, not {type(key).__name__}")
        tagged = _Templates(arguments, tags, "tag")

        def clear(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            target = _resolved(cache)
            named = arguments.named(args, kwargs) if keys else {}
            for key in keys:
                if callable(key):
                    target.delete(_joined(prefix, key(*args, **kwargs)))
                elif call_keys.is_pattern(key):
                    pattern = call_keys.fill(key, named, pattern=True)
                    target.delete_pattern(_joined(escape(prefix), pattern))
                else:
                    target.delete(_joined(prefix, call_keys.fill(key, named)))
            found = tagged(args, kwargs)
            if found:
                target.invalidate(*found)

        if _is_async(function):

            @functools.wraps(function)
            async def call_async(*args: Any, **kwargs: Any) -> Any:
                if before:
                    clear(args, kwargs)
                result = await function(*args, **kwargs)
                if not before:
                    clear(args, kwargs)
                return result

            return call_async  # type: ignore[return-value]

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if before:
                clear(args, kwargs)
            result = function(*args, **kwargs)
            if not before:
                clear(args, kwargs)
            return result

        return call  # type: ignore[return-value]

    return decorate
