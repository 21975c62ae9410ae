"""What a host's operator needs beside the application: `celeriac monitoring write DIR`.

``pack/`` is what is written out, with places for options, ``@NAME@``: Prometheus' configuration
with rules and their tests, Alertmanager, Grafana dashboards, a compose file, systemd units, a cron
line, the backup that these run, nginx. ``serve`` is what Prometheus scrapes. Rules and dashboards
name only metrics that a store exposes; a test reads them all.
"""

from celeriac.monitoring.pack import Options, Written, files, write

__all__ = ["Options", "Written", "files", "write"]
