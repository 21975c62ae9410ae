"""Where projects' settings find the middleware."""

from __future__ import annotations

from celeriac.django.rate_limits import RateLimitMiddleware
from celeriac.django.request_stats import RequestStatsMiddleware

__all__ = ["RateLimitMiddleware", "RequestStatsMiddleware"]
