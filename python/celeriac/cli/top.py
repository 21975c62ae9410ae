"""`celeriac top URL`: what a store does now, live, or once for scripts."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys

from celeriac.errors import ConfigurationError

from .look import look
from .rates import add_seconds
from .top_looks import looks
from .top_text import print_once


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "top",
        help="show live what a store does",
        description="Shows hit ratio, operations a second, memory, queues and the processes that "
        "are attached, until Ctrl-C. In a terminal it needs rich (pip install 'celeriac[top]'); "
        "--once and --json don't. Changes nothing, and never creates a store.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.add_argument(
        "--once", action="store_true", help="look twice, print the difference and end"
    )
    parser.add_argument(
        "--json", action="store_true", help="for programs: a line of JSON for each look"
    )
    add_seconds(parser, 1.0)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Look, until Ctrl-C."""
    live = not (options.once or options.json)
    if live and not sys.stdout.isatty():
        raise ConfigurationError("top is for a terminal; elsewhere: celeriac top URL --once|--json")
    if live and not importlib.util.find_spec("rich"):
        raise ConfigurationError(
            "top needs rich: pip install 'celeriac[top]'; --once and --json don't"
        )
    with look(options.url) as store:
        try:
            if live:
                from .top_page import show_live

                show_live(looks(store, options.seconds), options.seconds)
                return 0
            for found in looks(store, options.seconds):
                if options.json:
                    print(json.dumps(found), flush=True)
                else:
                    print_once(found)
                if options.once:
                    break
        except KeyboardInterrupt:  # how it is ended
            print("\n" if sys.stdout.isatty() else "", end="")
    return 0
