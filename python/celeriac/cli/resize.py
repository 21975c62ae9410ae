"""`celeriac resize URL MEMORY`: change a store's ceiling of memory while it is in use."""

from __future__ import annotations

import argparse

import celeriac

from .stats import show


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "resize",
        help="change the ceiling of a store's memory",
        description="Raises or lowers the memory that a store may take, while it is in use. When "
        "it is lowered, caches are evicted; messages and tables never are. Never creates a store. "
        "Processes that connect with a larger memory= raise it again: change their setting, too.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.add_argument("memory", metavar="MEMORY", help="bytes, or for example 512M or 2G")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Resize, and print what the store has then."""
    with celeriac.connect(options.url, create=False, memory=None) as store:
        store.resize(options.memory)
        stats = store.stats()
    for name in ("memory_limit", "memory_allocated", "memory_used"):
        print(f"{name}: {show(name, stats[name])}")
    return 0
