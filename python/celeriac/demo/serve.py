"""`celeriac demo --serve`: the watched shop, to look at, with some visitors, until Ctrl-C."""

from __future__ import annotations

import itertools
import random
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from . import interrupts
from .on_call import ADDRESSES, WatchedShop, watched_shop
from .options import PRODUCTS, DemoOptions
from .phase import Progress, Stand
from .run import check_requirements
from .services import ServiceGroup
from .shop import build_database
from .visitor import Visitor

VISITORS = 20
PAUSE = 0.05
EVENT_EVERY, SLOW_EVERY = 20, 150  # visits


def serve(
    options: DemoOptions, port: int, progress: Progress, tell: Callable[[WatchedShop], None]
) -> None:
    """Run until a signal comes; `tell` is called when the shop answers.

    All processes and files are gone when this raises. Call it in the main thread.

    Raises `Interrupted` after SIGINT, SIGTERM or SIGHUP, `DemoError` when a process fails.
    """
    check_requirements()
    with (
        interrupts.noted(),
        tempfile.TemporaryDirectory(prefix="celeriac-demo-") as scratch,
        ServiceGroup() as services,
    ):
        directory = Path(scratch)
        services.guard(scratch)
        progress.step("filling the database")
        template = build_database(services, directory, options)
        stand = Stand(services, directory, template, directory / "no plan", options, progress)
        with watched_shop(stand, port) as watched:
            tell(watched)
            _visit(watched, random.Random(options.seed))


def _visit(watched: WatchedShop, rng: random.Random) -> None:
    """A few visits a second for ever: some visitors come more often than guests may."""
    with ExitStack() as open_ones:
        visitors = [
            open_ones.enter_context(closing(Visitor(watched.shop.port, ADDRESSES.format(number))))
            for number in range(1, VISITORS + 1)
        ]
        for visit in itertools.count(1):
            interrupts.sleep(PAUSE)
            for service in watched.shop.running:
                service.check()
            visitor = visitors[min(int(rng.expovariate(0.4)), VISITORS - 1)]
            try:
                visitor.get(f"/products/{min(int(rng.paretovariate(0.6)), PRODUCTS)}")
                if visit % EVENT_EVERY == 0:
                    visitor.send_event(visit // EVENT_EVERY)
                if visit % SLOW_EVERY == 0:
                    visitors[-1].get("/bestsellers")
            except OSError:  # gunicorn closes a connection now and then
                visitor.close()
