"""`RateLimitMiddleware` and `@ratelimit`: how often a client may ask.

    MIDDLEWARE = [..., "celeriac.django.middleware.RateLimitMiddleware"]
    CELERIAC = {"RATE_LIMITS": {"superadmin": "300/min", "staff": "100/min", "guest": "50/min"}}

The limits are those of the store, so they hold over all processes of the host, and a client that is
refused is told when to come again (:mod:`celeriac.django.refusals`). Names in ``CELERIAC``:

- ``RATE_LIMITS``: by role, a rate, a list of rates (all must allow it), or None for no limit. A
  request whose role isn't there isn't limited, which is logged once for each such role
- ``RATE_LIMIT_ROLE``: the dotted path of a callable that takes the request and returns its role, or
  (role, key) if it is to be counted by something else than its user or address; None for no limit.
  By default :mod:`celeriac.django.roles`
- ``RATE_LIMIT_EXEMPT``: paths that aren't limited, ``*`` standing for anything: ``["/health/*"]``
- ``RATE_LIMIT_SHADOW``: True only tells and counts, refuses nobody
- ``RATE_LIMIT_ON_ERROR``: ``"allow"`` or ``"deny"`` while the store is away, or can't be opened
- ``TRUSTED_PROXIES``: see :mod:`celeriac.django.client`

The middleware may stand before or behind Django's AuthenticationMiddleware: it decides when the
view is known, just before it is called. Requests that find no view aren't counted, nor are those of
:mod:`celeriac.django.health`: who refuses his load balancer an answer is taken for dead.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Iterable
from fnmatch import fnmatchcase
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from asgiref.sync import markcoroutinefunction, sync_to_async
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from celeriac.django import client, conf, decisions, refusals, roles
from celeriac.errors import CeleriacError, ConfigurationError
from celeriac.limits import Decision

__all__ = ["UNLIMITED", "RateLimitMiddleware", "ratelimit"]

_View = TypeVar("_View", bound=Callable[..., Any])
_DECIDED = "_celeriac_rate_limit"
_log = logging.getLogger("celeriac.django.limits")
UNLIMITED = "celeriac_unlimited"
"""What a view has that is never limited by the middleware."""


class RateLimitMiddleware:
    """Sync and async. Not used, as Django calls it, without RATE_LIMITS.

    Raises:
        ConfigurationError: something in ``CELERIAC`` is unknown or wrong; when Django starts.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.settings = conf.read()
        if not self.settings.rate_limits:
            raise MiddlewareNotUsed("CELERIAC has no RATE_LIMITS")
        self.get_response = get_response
        self._networks, self._unix = client.trusted_networks(self.settings.trusted_proxies)
        self._limits: dict[str, decisions.Limit] = {}
        self._unlimited: set[str] = set()
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Handle a request."""
        if self._async:
            return self._handle_async(request)
        response: HttpResponseBase = self.get_response(request)
        return self._told(request, response)

    async def _handle_async(self, request: HttpRequest) -> HttpResponseBase:
        return self._told(request, await self.get_response(request))

    def process_view(
        self, request: HttpRequest, view: Any, args: Any, kwargs: Any
    ) -> HttpResponseBase | None:
        """Decide, now that the user is known; a response refuses. Under ASGI Django calls it in a
        thread, as the user may have to be read from the database."""
        return None if getattr(view, UNLIMITED, False) else self._decide(request)

    def _decide(self, request: HttpRequest) -> HttpResponseBase | None:
        if any(fnmatchcase(request.path, path) for path in self.settings.rate_limit_exempt):
            return None
        role, key = self._role(request)
        if role is None:
            return None
        if role not in self.settings.rate_limits:
            self._has_no_limit(role)
            return None
        rate = self.settings.rate_limits[role]
        if rate is None:
            return None
        on_error = "allow" if self.settings.rate_limit_shadow else self.settings.rate_limit_on_error
        limit = functools.partial(self._of_role, role, rate)
        decision = decisions.decide(limit, f"{role}:{key}", rate, on_error)
        setattr(request, _DECIDED, (role, decision))
        return None if decision else refusals.too_many(request, role, decision)

    def _role(self, request: HttpRequest) -> tuple[str | None, str]:
        user: Any = getattr(request, "user", None)
        known = user is not None and user.is_authenticated
        key = f"user {user.pk}" if known else self._address(request)
        if self.settings.rate_limit_role is not None:
            found = self.settings.rate_limit_role(request)
            if isinstance(found, tuple) and len(found) == 2:
                found, key = found[0], str(found[1])
            if found is not None and not isinstance(found, str):
                raise ConfigurationError(
                    "RATE_LIMIT_ROLE in CELERIAC names a callable that returns a role, (role, key) "
                    f"or None: {found!r} is no role"
                )
            return found, key
        store = None
        if known and not roles.BUILT_IN.issuperset(self.settings.rate_limits):
            try:
                store = conf.store()
            except CeleriacError:  # away; the limiter's on_error decides, and the database is asked
                store = None
        return roles.role_of(user, self.settings.rate_limits, store), key

    def _has_no_limit(self, role: str) -> None:
        if role not in self._unlimited:
            self._unlimited.add(role)
            _log.warning(
                "RATE_LIMIT_ROLE gave the role %r, which RATE_LIMITS in CELERIAC doesn't have: its "
                "requests aren't limited; None as its limit says that this is meant",
                role,
            )

    def _address(self, request: HttpRequest) -> str:
        return f"ip {client.address(request, self._networks, self._unix)}"

    def _of_role(self, role: str, rate: Any) -> decisions.Limit:
        limit = self._limits.get(role)
        if limit is None:
            limit = self._limits[role] = decisions.limit(
                rate,
                f"django role {role}",
                on_error=self.settings.rate_limit_on_error,
                shadow=self.settings.rate_limit_shadow,
            )
        return limit

    def _told(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        decided: tuple[str, Decision] | None = getattr(request, _DECIDED, None)
        if decided is not None:
            refusals.add_headers(response, *decided)
        return response


def ratelimit(
    rate: str | Iterable[str],
    key: str | Callable[[HttpRequest], str | None] = "ip",
    *,
    methods: Iterable[str] = (),
    block: bool = True,
    name: str | None = None,
    burst: int | None = None,
    algorithm: str = "gcra",
    on_error: str = "allow",
    shadow: bool = False,
) -> Callable[[_View], _View]:
    """A decorator for views, sync and async: at most so much for each client.

    :param rate: such as ``"10/min"``, or a list of which all must allow it.
    :param key: ``"ip"`` the client's address; ``"user"`` the user, or the address of who isn't
        logged in; or a callable that takes the request, whose None means no limit.
    :param methods: only these count, such as ``["POST"]``; all by default.
    :param block: False calls the view all the same, with ``request.limited`` set.
    :param name: limits of one name share what was used; by default the view's own.

    Raises ConfigurationError where it is used for a rate or option that makes no sense. A class of
    views takes it by Django's ``method_decorator``.
    """
    if not callable(key) and key not in ("ip", "user"):
        raise ConfigurationError(f"key={key!r}: 'ip', 'user', or a callable that takes the request")
    counted = frozenset(method.upper() for method in methods)

    def decorate(view: _View) -> _View:
        own = name or f"view {view.__module__}.{view.__qualname__}"
        made: list[decisions.Limit] = []

        def limit() -> decisions.Limit:
            if not made:
                options = {"burst": burst, "on_error": on_error, "shadow": shadow}
                made.append(decisions.limit(rate, own, algorithm, **options))
            return made[0]

        def decide(request: HttpRequest) -> HttpResponseBase | None:
            request.limited = getattr(request, "limited", False)
            if counted and request.method not in counted:
                return None
            counted_by = _key(request, key)
            if counted_by is None:
                return None
            decision = decisions.decide(limit, counted_by, rate, "allow" if shadow else on_error)
            setattr(request, _DECIDED, (own, decision))
            if decision:
                return None
            request.limited = True
            return refusals.too_many(request, own, decision) if block else None

        def told(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
            decided = getattr(request, _DECIDED, None)
            if decided is not None and decided[0] == own:
                refusals.add_headers(response, *decided)
            return response

        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def call_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                refused = await sync_to_async(decide, thread_sensitive=True)(request)
                if refused is not None:
                    return refused
                return told(request, await view(request, *args, **kwargs))

            return call_async  # type: ignore[return-value]

        @functools.wraps(view)
        def call(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            refused = decide(request)
            return refused if refused is not None else told(request, view(request, *args, **kwargs))

        return call  # type: ignore[return-value]

    return decorate


def _key(request: HttpRequest, key: str | Callable[[HttpRequest], str | None]) -> str | None:
    if callable(key):
        return key(request)
    user = getattr(request, "user", None) if key == "user" else None
    if user is not None and user.is_authenticated:
        return f"user {user.pk}"
    networks, unix = client.trusted_networks(conf.read().trusted_proxies)
    return f"ip {client.address(request, networks, unix)}"
