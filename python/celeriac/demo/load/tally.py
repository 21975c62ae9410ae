"""What the driver counts: one entry for each request, by its place in the plan."""

from __future__ import annotations

import json
import time
from typing import Any

from ..plan import KINDS, WEBHOOK, Request
from .messages import Answer

BUCKET_SECONDS = 0.5


class Tally:
    """The answers of one run.

    `outcomes` has a letter for each request of the plan: `h` answered from the cache, `m` read
    from the database, `.` no cached view, `!` failed, blank not sent.
    """

    def __init__(self, requests: int) -> None:
        self.began = time.perf_counter()
        self.began_at = time.time()
        self.seconds = 0.0
        self.answered = 0
        self.failed: list[str] = []
        self.stale = 0
        self.tasks: list[str] = []
        self.outcomes = bytearray(b" " * requests)
        self.milliseconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.timeline: list[int] = []

    def add(
        self, index: int, request: Request, seconds: float, answer: Answer, known_version: int
    ) -> None:
        """Count an answer; `known_version` is the product's version known when it was asked."""
        if answer.status >= 400:
            self.fail(index, request, seconds, answer.status)
            return
        kind = request[0]
        self.answered += 1
        self.milliseconds[kind].append(round(seconds * 1000, 3))
        self.outcomes[index] = ord(answer.cache[:1] or ".")
        if answer.version < known_version:
            self.stale += 1
        if kind == WEBHOOK:
            self.tasks += json.loads(answer.body)["tasks"]
        bucket = int((time.perf_counter() - self.began) / BUCKET_SECONDS)
        self.timeline += [0] * (bucket + 1 - len(self.timeline))
        self.timeline[bucket] += 1

    def fail(self, index: int, request: Request, seconds: float, status: int) -> None:
        """Count a request that got an error, or with `status` 0 no answer."""
        self.outcomes[index] = ord("!")
        what = f"status {status}" if status else "no answer"
        self.failed.append(f"{request[0]} {request[1]}: {what} after {seconds * 1000:.0f} ms")

    def finish(self) -> None:
        """The last answer is in."""
        self.seconds = time.perf_counter() - self.began

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "began_at": self.began_at,
            "seconds": self.seconds,
            "answered": self.answered,
            "failed": self.failed,
            "stale": self.stale,
            "tasks": self.tasks,
            "outcomes": self.outcomes.rstrip().decode(),
            "milliseconds": self.milliseconds,
            "timeline": self.timeline,
        }
