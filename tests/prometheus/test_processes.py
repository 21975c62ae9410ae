"""The store under what programs do to their processes: forks, signals, collections, servers."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from programs import run

import celeriac

pytest.importorskip("prometheus_client", reason="the extra celeriac[prometheus] isn't installed")

APP = """
import os
import prometheus_client as p
import celeriac.prometheus

before = p.Counter("before", "B.", ["pid"])
celeriac.prometheus.install({url!r})
requests = p.Counter("requests", "R.", ["path"])
took = p.Histogram("took", "T.")
busy = p.Gauge("busy", "B.", multiprocess_mode="livesum")
exposed = p.make_wsgi_app()

def app(environ, start):
    path = environ["PATH_INFO"]
    if path == "/metrics":
        return exposed(environ, start)
    with busy.track_inprogress(), took.time():
        requests.labels(path).inc()
    if path == "/die":
        os.kill(os.getpid(), 9)
    start("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def test_gunicorn_s_workers_are_one_program(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn", reason="gunicorn isn't installed")
    url = f"shm://t-{secrets.token_hex(6)}"
    (tmp_path / "counted.py").write_text(APP.format(url=url))
    socket = tmp_path / "g.sock"
    command = [sys.executable, "-m", "gunicorn", "--workers=3", "--preload", "counted:app"]
    server = subprocess.Popen([*command, f"--bind=unix:{socket}"], cwd=tmp_path)
    try:
        pids = set()
        for _ in range(60):
            pids.add(ask(socket, "/a"))
        for _ in range(2):
            with pytest.raises(ConnectionError):
                ask(socket, "/die")
        for _ in range(30):
            pids.add(ask(socket, "/a"))
        lines = {ask(socket, "/metrics").partition("# HELP requests")[2] for _ in range(8)}
        (shown,) = {text.partition("# HELP celeriac")[0] for text in lines}  # whoever is asked
        assert '\nrequests_total{path="/a"} 90.0\n' in shown
        assert '\nrequests_total{path="/die"} 2.0\n' in shown
        assert "\ntook_count 92.0\n" in shown
        assert "\nbusy 0.0\n" in shown
        assert len(pids) > 1
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        celeriac.connect(url).destroy(force=True)


def ask(at: Path, path: str) -> str:
    """GET, as soon as somebody listens."""
    import http.client
    import socket

    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(30)
        try:
            connection.sock.connect(str(at))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
            continue
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        except http.client.RemoteDisconnected as error:
            raise ConnectionError from error
        finally:
            connection.close()


def test_start_http_server_shows_all(tmp_path: Path) -> None:
    run("""
        import urllib.request
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.")
        child(lambda: c.inc(3))
        server, thread = p.start_http_server(0, addr="127.0.0.1")
        at = f"http://127.0.0.1:{server.server_port}/metrics"
        text = urllib.request.urlopen(at, timeout=20).read()
        assert b"\\nc_total 3.0\\n" in text
        asked = urllib.request.Request(at, headers={"Accept": "application/openmetrics-text"})
        assert urllib.request.urlopen(asked, timeout=20).read().endswith(b"# EOF\\n")
        server.shutdown()
        server.server_close()
        thread.join()
    """)


def test_signal_handlers_may_count() -> None:
    run("""
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", ["l"])
        h = p.Histogram("h", "H.")
        handled = 0
        def handler(*_):
            global handled
            handled += 1
            c.labels(str(handled % 50)).inc()
            h.observe(1)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        mine = 0
        while handled < 200:
            c.labels(f"new {mine}").inc()
            h.observe(1)
            mine += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        (metric,) = [m for m in p.REGISTRY.collect() if m.name == "c"]
        total = sum(s.value for s in metric.samples if s.name == "c_total")
        assert total + value("celeriac_dropped_series_total") == mine + handled
        assert value("h_count") == mine + handled
    """)


def test_callbacks_of_the_garbage_collector_may_count() -> None:
    run("""
        import gc
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", ["l"])
        calls = 0
        def callback(phase, info):
            global calls
            calls += 1
            c.labels(f"gc {calls % 40}").inc()
        gc.callbacks.append(callback)
        gc.set_threshold(5, 2, 2)
        for i in range(300):
            c.labels(f"{i}").inc()
        gc.callbacks.clear()
        assert calls > 20
        (metric,) = [m for m in p.REGISTRY.collect() if m.name == "c"]
        assert sum(s.value for s in metric.samples if s.name == "c_total") == 300 + calls
    """)


def test_a_fork_while_a_thread_has_the_locks() -> None:
    run("""
        import threading
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", ["l"])
        held, go_on = threading.Event(), threading.Event()
        def hold():
            with c._lock, p.REGISTRY._lock:
                held.set()
                go_on.wait(50)
        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(50)
        child(lambda: (c.labels("new").inc(), p.generate_latest(), p.Counter("d", "D.").inc()))
        go_on.set()
        thread.join()
        assert value("c_total", l="new") == 1
        assert value("d_total") == 1
    """)


def test_a_killed_process_s_counts_stay_and_its_stripe_goes_to_the_next() -> None:
    run("""
        celeriac.prometheus.install(store)
        c = p.Counter("c", "C.", ["l"])
        for n in range(30):
            living(lambda: c.labels("x").inc())()
        assert value("c_total", l="x") == 30
        assert store.metrics.counts()["processes"] == 0
        used = store.stats()["memory_used"]
        for n in range(30):
            living(lambda: c.labels("x").inc())()
        assert value("c_total", l="x") == 60
        assert store.stats()["memory_used"] == used
    """)
