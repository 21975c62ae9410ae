"""nginx with the pack's limits: what is over them is refused, and the metrics aren't shown."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest


def ask(path: Path, what: str) -> int:
    """The status of an answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(path))
        client.sendall(f"GET {what} HTTP/1.0\r\nHost: h\r\n\r\n".encode())
        return int(client.makefile("rb").readline().split()[1])


@pytest.mark.worker
def test_what_is_over_the_limit_is_refused(
    pack: Path, tmp_path: Path, find_tool: Callable[[str], str]
) -> None:
    nginx = find_tool("nginx")
    text = (pack / "nginx/celeriac.conf").read_text()
    # As written but for the addresses, and a rate that doesn't depend on how fast this machine is.
    listening = tmp_path / "s"
    changes = {"listen 80;": f"listen unix:{listening};", "rate=100r/s": "rate=1r/m", ":8000": ":1"}
    for old, new in changes.items():
        assert text.count(old) == 1
        text = text.replace(old, new)
    (tmp_path / "celeriac.conf").write_text(text)
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/errors;\n"
        "events {}\nhttp { access_log off; "
        + "".join(f"{name}_temp_path {tmp_path}/{name}; " for name in names)
        + "include celeriac.conf; }\n"
    )
    command = [nginx, "-p", f"{tmp_path}/", "-e", f"{tmp_path}/errors", "-c", "nginx.conf"]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=60)
    assert checked.returncode == 0, checked.stderr
    if listening.exists():
        listening.unlink()  # which the check leaves
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            deadline = time.monotonic() + 60
            while not listening.exists() or not (tmp_path / "pid").exists():
                assert running.poll() is None, (tmp_path / "errors").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            statuses = Counter(ask(listening, "/") for _ in range(30))
            assert ask(listening, "/metrics") == 404
        finally:
            os.kill(running.pid, signal.SIGTERM)
    # One, and the burst of 20; nobody is behind nginx. None is let through by a minute's turn.
    assert statuses == {502: 21, 429: 9}
