"""How long requests took: a histogram in the project's store, over all of its processes.

``celeriac_http_request_duration_seconds`` with the labels ``view`` (its name in the URL
configuration), ``method`` and ``status``. A project without a store, or whose store is away, has
none.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from celeriac.django import conf
from celeriac.errors import CeleriacError

if TYPE_CHECKING:
    from django.http import HttpRequest

__all__ = ["NAME", "Durations"]

NAME = "celeriac_http_request_duration_seconds"
PAUSE = 10.0  # seconds after which a store that couldn't be used is tried again
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))

logger = logging.getLogger("celeriac.django")


class Durations:
    """The histogram, made at the first request: nothing is opened when Django starts."""

    def __init__(self) -> None:
        self._family: Any = None
        self._not_before = 0.0
        self._children: dict[tuple[str, str, int], Any] = {}

    def observe(self, request: HttpRequest, status: int, seconds: float) -> None:
        """Count a request."""
        if self._not_before and time.monotonic() < self._not_before:
            return
        match = request.resolver_match
        method = request.method or ""
        key = (match.view_name if match else "", method if method in METHODS else "other", status)
        child = self._children.get(key)
        try:
            if child is None:
                child = self._child(key)
            child.observe(seconds)
        except CeleriacError as error:
            self._family, self._children = None, {}
            self._not_before = time.monotonic() + PAUSE
            logger.info("durations of requests aren't counted: %s", error)

    def _child(self, key: tuple[str, str, int]) -> Any:
        if self._family is None:
            text = "How long requests took, to the beginning of the response."
            labels = ["view", "method", "status"]
            self._family = conf.store().metrics.histogram(NAME, text, labels)
        view, method, status = key
        child = self._children[key] = self._family.labels(view, method, str(status))
        return child
