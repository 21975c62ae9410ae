"""The ways to run the shop that the demo compares; the shop's `config/stacks.py` has them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stack:
    """A name for `DEMO_STACK`, a title for people, and whether tasks go through a broker."""

    name: str
    title: str
    queued: bool
    how: str


STACKS = {
    stack.name: stack
    for stack in (
        Stack(
            "locmem",
            "LocMem",
            queued=False,
            how="as such a project starts out: Django's LocMem cache in each web worker, with room "
            "for every entry; the webhook's work is done inside the request, retries at once; "
            "no broker.",
        ),
        Stack(
            "celeriac",
            "celeriac",
            queued=True,
            how="cache, Celery's broker and results in one shm:// store; no server.",
        ),
        Stack(
            "redis",
            "Redis",
            queued=True,
            how="Django's RedisCache, Celery's Redis broker and Redis results on one redis-server "
            "of this host over TCP, without persistence.",
        ),
    )
}
