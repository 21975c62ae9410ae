"""`manage.py cache_monitor`: a cache of this project, for people and scripts.

    manage.py cache_monitor --stats       what it holds and how often it hits (the default)
    manage.py cache_monitor --test        write, read, count and remove an entry
    manage.py cache_monitor --watch       a line every two seconds, until Ctrl-C
    manage.py cache_monitor --clear       remove all of its entries

`--cache` names another cache than `default`. Exit codes: 0 all is well, 1 the cache or its store
can't be used, 2 it was called wrongly.
"""

from __future__ import annotations

import itertools
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from django.core.cache import caches
from django.core.management.base import BaseCommand, CommandError

from celeriac.django import conf, health, shown
from celeriac.django.samples import Sample, rates, sample_of
from celeriac.errors import CeleriacError, ConfigurationError

SECONDS = 2.0


class Command(BaseCommand):
    """See above."""

    help = "Show, watch, test or clear a cache of this project that is celeriac's."
    requires_system_checks: list[Any] = []

    def add_arguments(self, parser: Any) -> None:
        """What it takes."""
        what = parser.add_mutually_exclusive_group()
        for name, text in (
            ("stats", "what the cache holds and how often it hits (the default)"),
            ("clear", "remove all entries of the cache"),
            ("test", "write, read, count and remove an entry"),
            ("watch", "a line every few seconds, until Ctrl-C"),
        ):
            what.add_argument(f"--{name}", action="store_const", const=name, dest="what", help=text)
        parser.add_argument(
            "--cache", default="default", metavar="ALIAS", help="its name in CACHES (default)"
        )
        parser.add_argument("--json", action="store_true", help="of --stats: as JSON, for programs")
        parser.add_argument(
            "--seconds", type=float, default=SECONDS, help="of --watch: between two lines (2)"
        )
        parser.add_argument("--lines", type=int, default=None, help="of --watch: end after so many")

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it. Raises CommandError with the exit code."""
        if options["seconds"] <= 0 or (options["lines"] is not None and options["lines"] < 1):
            raise CommandError("--seconds and --lines are above zero", returncode=2)
        try:
            conf.url_of(options["cache"])
            getattr(self, f"_{options['what'] or 'stats'}")(caches[options["cache"]], options)
        except ConfigurationError as error:
            raise CommandError(str(error), returncode=2) from None
        except health.UNUSABLE as error:
            raise CommandError(health.reason_of(error), returncode=1) from None
        except KeyboardInterrupt:
            self.stdout.write("")

    def _stats(self, cache: Any, options: Any) -> None:
        stats = cache.store.stats()
        if options["json"]:
            self.stdout.write(json.dumps(stats, indent=2))
            return
        sample = sample_of(stats)
        self.stdout.write(f"store       {stats['path']}")
        self.stdout.write(f"hit ratio   {shown.ratio(sample.hits, sample.misses)}")
        self.stdout.write(f"hits        {sample.hits:,}")
        self.stdout.write(f"misses      {sample.misses:,}")
        self.stdout.write(f"evictions   {sample.evictions:,}")
        used, limit = shown.size(sample.memory), shown.size(stats["memory_limit"])
        self.stdout.write(f"memory      {used} of {limit}")
        self.stdout.write(f"processes   {stats['owners']:,}")
        for title, parts in (("cache", stats["caches"]), ("queue", stats["queues"])):
            for name, counts in parts.items():
                told = ", ".join(f"{number:,} {what}" for what, number in counts.items())
                self.stdout.write(f"{title} {name!r}: {told}")

    def _test(self, cache: Any, options: Any) -> None:
        health.try_out(cache.store)
        before, key = cache.ignored_exceptions, f"celeriac-test-{secrets.token_hex(8)}"
        began = time.perf_counter()
        value = {"number": 1, "text": key}
        for done in self._steps(cache, key, value):
            if not done or cache.ignored_exceptions != before:
                raise CeleriacError("the cache didn't give back what was written")
        took = 1e6 * (time.perf_counter() - began)
        self.stdout.write(f"ok: written, read, counted and removed in {took:,.0f} µs")

    def _steps(self, cache: Any, key: str, value: Any) -> Iterator[bool]:
        """Whether each step did what it should."""
        try:
            cache.set(key, value, 60)
            yield cache.get(key) == value
            yield not cache.add(key, 0, 60)
            cache.set(key, 1, 60)
            yield cache.incr(key) == 2
            yield cache.delete(key)
            yield cache.get(key) is None
        finally:
            cache.delete(key)

    def _clear(self, cache: Any, options: Any) -> None:
        cache.store.caches()  # an error here, where the cache itself may ignore it
        before = cache.ignored_exceptions
        cache.clear()
        if cache.ignored_exceptions != before:
            raise CeleriacError("the cache could not be cleared")
        self.stdout.write(f"cleared the cache {options['cache']!r}")

    def _watch(self, cache: Any, options: Any) -> None:
        heads = ("time", "hit ratio", "hits", "misses", "evictions", "memory", "ready", "done")
        self.stdout.write("  ".join(head.rjust(10) for head in heads))
        before: Sample | None = None
        for line in itertools.count(1):
            now = sample_of(cache.store.stats())
            self.stdout.write(_line(before, now))
            self.stdout.flush()
            before = now
            if line == options["lines"]:
                return
            time.sleep(options["seconds"])


def _line(before: Sample | None, now: Sample) -> str:
    """Rates since the last line; of the first, nothing."""
    steps: dict[str, float | None] = dict.fromkeys(("hits", "misses", "evictions", "done"))
    if before is not None:
        steps = {name: rates([before, now], name)[0] for name in steps}
    cells = [time.strftime("%H:%M:%S"), shown.ratio(now.hits, now.misses)]
    cells += [shown.per_second(steps[name]) for name in ("hits", "misses", "evictions")]
    cells += [shown.size(now.memory), shown.count(now.ready), shown.per_second(steps["done"])]
    return "  ".join(cell.rjust(10) for cell in cells)
