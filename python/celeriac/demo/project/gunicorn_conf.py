"""How gunicorn serves the shop: a few processes, two threads each, connections kept alive."""

from __future__ import annotations

import os

wsgi_app = "config.wsgi:application"
worker_class = "gthread"
workers = int(os.environ.get("DEMO_WORKERS", "4"))
threads = 2
keepalive = 30
graceful_timeout = 5
bind = [os.environ.get("DEMO_BIND", "127.0.0.1:8000")]
control_socket_disable = True
