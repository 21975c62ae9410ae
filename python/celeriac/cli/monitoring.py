"""`celeriac monitoring write|serve`: what Prometheus, Alertmanager, Grafana and systemd need."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from celeriac.errors import ConfigurationError
from celeriac.monitoring import Options, write
from celeriac.url import parse_url

from .look import look

DEFAULTS = Options()


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "monitoring",
        help="write files for Prometheus, Alertmanager, Grafana, systemd and nginx",
        description="Files for those who run an application, and what Prometheus scrapes.",
    )
    parts = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_write(parts)
    _add_serve(parts)


def _add_write(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser(
        "write",
        help="write configurations, alerts, dashboards, units and a backup's script",
        description="Writes Prometheus' configuration with rules and their tests, Alertmanager's, "
        "Grafana dashboards, a compose file, systemd units, a cron line and nginx' limits. What is "
        "there and different stays as it is (exit code 1) unless --force.",
    )
    parser.add_argument("directory", metavar="DIR", help="is made if it isn't there")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    option = parser.add_argument
    option("--port", type=int, default=DEFAULTS.port, help="of the metrics (%(default)s)")
    option(
        "--target",
        dest="targets",
        action="append",
        default=[],
        metavar="HOST:PORT",
        help="what Prometheus scrapes, once or more (127.0.0.1 and --port)",
    )
    option("--store", default=DEFAULTS.store, metavar="URL", help="that is shown (%(default)s)")
    option(
        "--queues", default=DEFAULTS.queues, metavar="URL", help="that is backed up (%(default)s)"
    )
    option("--backups", default=DEFAULTS.backups, metavar="DIR", help="for copies (%(default)s)")
    option(
        "--keep-days", type=int, default=DEFAULTS.keep_days, help="age of the oldest (%(default)s)"
    )
    option("--user", default=DEFAULTS.user, help="whom all runs as (%(default)s)")
    option("--project", default=DEFAULTS.project, metavar="DIR", help="its code (%(default)s)")
    option("--app", default=DEFAULTS.app, help="package of wsgi.py and Celery (%(default)s)")
    option("--job", default=DEFAULTS.job, help="Prometheus' name for it (%(default)s)")
    option("--webhook", default=DEFAULTS.webhook, metavar="URL", help="for alerts (%(default)s)")
    option("--mixins", action="store_true", help="django-prometheus' names too, for django-mixin")
    parser.set_defaults(run=run_write)


def _add_serve(parts: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = parts.add_parser(
        "serve",
        help="answer Prometheus: a store's metrics over HTTP",
        description="What all processes of the store counted, and the store's own statistics, at "
        "/metrics. Never creates a store; one that isn't there is celeriac_up 0. Ends on SIGTERM.",
    )
    parser.add_argument("url", metavar="URL", help="the store, for example shm://app")
    parser.add_argument("--host", default="127.0.0.1", help="to listen at (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULTS.port, help="0: any that is free (%(default)s)"
    )
    parser.set_defaults(run=run_serve)


def run_write(options: argparse.Namespace) -> int:
    """Write, and say what was written; 1 when something is left as it was."""
    chosen = {name: getattr(options, name) for name in Options.__dataclass_fields__}
    done = write(
        options.directory,
        Options(**{**chosen, "targets": tuple(options.targets)}),
        force=options.force,
    )
    for word, paths in (("wrote", done.new), ("replaced", done.replaced)):
        for path in paths:
            print(f"{word} {path}")
    if done.same:
        print(f"{len(done.same)} files are as they would be written")
    for path in done.left:
        print(f"left {path}: it is there and different (--force)", file=sys.stderr)
    return 1 if done.left else 0


def run_serve(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    from celeriac.monitoring.serve import server  # its http.server is much for all other commands

    parse_url(options.url)
    if not 0 <= options.port <= 65535:
        raise ConfigurationError(f"--port {options.port}: 0 to 65535")

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    with server(lambda: look(options.url), options.host, options.port) as serving:
        before = signal.signal(signal.SIGTERM, end)
        print(f"http://{options.host}:{serving.server_port}/metrics", flush=True)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            return 0
        finally:
            signal.signal(signal.SIGTERM, before)
    return 0
