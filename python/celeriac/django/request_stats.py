"""`RequestStatsMiddleware`: what a response took, in its headers; slow ones are logged and kept.

`celeriac.django.middleware` is where projects name it. Put it first, so that it sees all of a
request.

- ``X-Request-ID``: the client's or proxy's own, if sane, else a new one; also
  ``request.request_id``, ``%(request_id)s`` in every log record, and a header of each Celery task
  that is sent meanwhile
- ``X-Request-Time``: seconds from the first middleware to the response, which of a streamed one is
  the time to its beginning
- ``X-SQL-Queries``, ``X-Cache-Hits``, ``X-Cache-Misses``: of this request, on all connections and
  all celeriac caches, whatever threads and tasks it was spread over (what they read after it
  doesn't count)
- ``Server-Timing``, if ``CELERIAC["SERVER_TIMING"]`` asks for it: the same, for a browser's tools

How long it took is also counted, by view, method and status (:mod:`celeriac.django.durations`). A
header that the view has set itself is left. A slow request (``SLOW_REQUEST_SECONDS``,
``SLOW_REQUEST_QUERIES``) goes to the logger ``celeriac.django.slow`` and into the store
(:mod:`celeriac.django.slow_requests`), which may be away or full: that is logged, and the response
goes out all the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from inspect import iscoroutinefunction
from typing import Any, TypeAlias

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from celeriac import _core, request_id
from celeriac.django import conf, slow_requests
from celeriac.django.durations import Durations
from celeriac.django.queries import Queries, queries, watch
from celeriac.errors import CeleriacError

__all__ = ["RequestStatsMiddleware"]

logger = logging.getLogger("celeriac.django.slow")

Response: TypeAlias = HttpResponseBase


class _Running:
    """One request: what it has set in its context, and what it counts."""

    __slots__ = ("begun", "id", "queries", "tally", "tokens")

    def __init__(self, request: HttpRequest) -> None:
        self.begun = time.perf_counter()
        self.id = request.request_id = request_id.accepted(request.META.get("HTTP_X_REQUEST_ID"))
        self.queries = Queries()
        self.tally = _core.Tally()
        self.tokens = (
            request_id.request_id.set(self.id),
            queries.set(self.queries),
            _core.tally.set(self.tally),
        )

    def leave(self) -> None:
        """Give the context back as it was."""
        of_id, of_queries, of_tally = self.tokens
        request_id.request_id.reset(of_id)
        queries.reset(of_queries)
        _core.tally.reset(of_tally)


class RequestStatsMiddleware:
    """Sync and async: it is what the handler behind it is.

    Raises:
        ConfigurationError: ``CELERIAC`` has something unknown or wrong in it; when Django starts.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.settings = conf.read()
        self._durations = Durations()
        request_id.in_log_records()
        request_id.carry_in_tasks()
        watch()
        self._async = iscoroutinefunction(get_response)
        if self._async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Response | Awaitable[Response]:
        """Handle a request."""
        if self._async:
            return self._handle_async(request)
        running = _Running(request)
        try:
            response: Response = self.get_response(request)
            return self._finish(running, request, response)
        finally:
            running.leave()

    async def _handle_async(self, request: HttpRequest) -> Response:
        running = _Running(request)
        try:
            return self._finish(running, request, await self.get_response(request))
        finally:
            running.leave()

    def _finish(self, running: _Running, request: HttpRequest, response: Response) -> Response:
        seconds = time.perf_counter() - running.begun
        self._durations.observe(request, response.status_code, seconds)
        tally, sql = running.tally, running.queries
        headers = response.headers
        for name, value in (
            ("X-Request-ID", running.id),
            ("X-Request-Time", f"{seconds:.6f}"),
            ("X-SQL-Queries", str(sql.count)),
            ("X-Cache-Hits", str(tally.hits)),
            ("X-Cache-Misses", str(tally.misses)),
        ):
            if name not in headers:
                headers[name] = value
        if self.settings.server_timing and "Server-Timing" not in headers:
            headers["Server-Timing"] = (
                f"total;dur={seconds * 1000:.2f}, sql;dur={sql.seconds * 1000:.2f};"
                f'desc="{sql.count} queries", cache;desc="{tally.hits} hits, {tally.misses} misses"'
            )
        longest, most = self.settings.slow_request_seconds, self.settings.slow_request_queries
        if (longest is not None and seconds > longest) or (most is not None and sql.count > most):
            self._note(running, request, response, seconds)
        return response

    def _note(
        self, running: _Running, request: HttpRequest, response: Response, seconds: float
    ) -> None:
        match = request.resolver_match
        slow = slow_requests.SlowRequest(
            at=time.time() - seconds,
            seconds=seconds,
            method=request.method or "",
            path=request.path[:1000],
            view=match.view_name if match else "",
            status=response.status_code,
            queries=running.queries.count,
            query_seconds=running.queries.seconds,
            hits=running.tally.hits,
            misses=running.tally.misses,
            request_id=running.id,
        )
        logger.warning(
            "slow request: %s %s %d in %.3f s, %d queries in %.3f s, %d cache hits, %d misses, "
            "id %s",
            slow.method,
            slow.path.encode("unicode_escape").decode(),  # one line, whatever the path has in it
            slow.status,
            slow.seconds,
            slow.queries,
            slow.query_seconds,
            slow.hits,
            slow.misses,
            slow.request_id,
            extra={"request": request, "status_code": slow.status},
        )
        try:
            slow_requests.note(conf.store(), slow, self.settings.slow_requests_kept)
        except CeleriacError as error:
            logger.warning("the slow request wasn't kept: %s", error)
