"""`celeriac monitoring serve URL`, and a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import everything
import promql
import pytest

import celeriac
from celeriac.cli import BAD_USAGE, FINDING, main

pytestmark = pytest.mark.worker


@contextmanager
def serving(url: str) -> Iterator[str]:
    """The address that serves a store's metrics."""
    command = [sys.executable, "-m", "celeriac", "monitoring", "serve", url, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
    assert process.returncode == 0


def get(address: str, **headers: str) -> tuple[str, str]:
    """The kind of the answer, and the answer."""
    request = urllib.request.Request(address, headers=headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_what_the_store_has_is_served_as_it_is_asked_for(store: celeriac.Store) -> None:
    store.metrics.counter("orders", "Orders.").inc(3)
    store.cache("c").set("k", 1)
    with serving(store.url) as address:
        kind, text = get(address)
        assert kind == "text/plain; version=0.0.4; charset=utf-8"
        assert "orders_total 3" in text
        assert "celeriac_up 1.0\n" in text
        assert 'celeriac_cache_sets_total{cache="c"} 1.0' in text
        kind, text = get(address, Accept="application/openmetrics-text;version=1.0.0,*/*;q=0.1")
        assert kind.startswith("application/openmetrics-text; version=1.0.0")
        assert text.endswith("# EOF\n")
        assert text.count("# EOF") == 1
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(address.replace("/metrics", "/"))


def test_a_store_that_comes_and_goes() -> None:
    url = f"shm://t-{secrets.token_hex(6)}"
    with serving(url) as address:
        for _ in range(2):
            assert get(address)[1].splitlines()[-1] == "celeriac_up 0.0"
            with pytest.raises(celeriac.StoreNotFound):
                celeriac.connect(url, create=False)
            with celeriac.connect(url) as store:
                store.metrics.counter("orders", "Orders.").inc()
                assert "orders_total 1" in get(address)[1]
                store.destroy(force=True)
        assert "# EOF" in get(address, Accept="application/openmetrics-text")[1]


def test_bad_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["redis//x"], ["shm://app", "--port=65536"]):
        assert main(["monitoring", "serve", *arguments]) == BAD_USAGE
    assert "65535" in capsys.readouterr().err


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "celeriac", "monitoring", "serve", "shm://app"]
        command += [f"--port={port}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == FINDING
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


class Prometheus:
    """One that scrapes an address, by the pack's configuration."""

    def __init__(self, api: str) -> None:
        self._api = api

    def query(self, expression: str) -> list[Any]:
        """What it finds at this moment; AssertionError for what it can't parse."""
        data = urllib.parse.urlencode({"query": expression}).encode()
        try:
            with urllib.request.urlopen(f"{self._api}/query", data, timeout=60) as answer:
                result: list[Any] = json.load(answer)["data"]["result"]
                return result
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it isn't ready yet
                return []
            raise AssertionError(f"{expression}: {error.read().decode()}") from None

    def wait_for(self, expression: str) -> list[Any]:
        """What it finds, once it finds something."""
        deadline = time.monotonic() + 120
        while True:
            try:
                if found := self.query(expression):
                    return found
            except OSError:  # it doesn't listen yet
                pass
            assert time.monotonic() < deadline, f"no {expression}"
            time.sleep(0.1)


@contextmanager
def prometheus(program: str, pack: Path, directory: Path, address: str) -> Iterator[Prometheus]:
    target = urllib.parse.urlsplit(address).netloc
    text = (pack / "prometheus/prometheus.yml").read_text()
    text, count = re.subn(r"_interval: 15s", "_interval: 500ms", text)
    assert count == 2
    text = text.replace("127.0.0.1:9108", target).replace("127.0.0.1:9093", "127.0.0.1:1")
    text = text.replace("- rules/", f"- {pack}/prometheus/rules/")
    (directory / "prometheus.yml").write_text(text)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        program,
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield Prometheus(f"http://127.0.0.1:{port}/api/v1")
        finally:
            os.kill(process.pid, signal.SIGTERM)


def test_prometheus_scrapes_a_live_store(
    pack: Path, tmp_path: Path, find_tool: Callable[[str], str]
) -> None:
    pytest.importorskip("celery", reason="the extra celeriac[celery] isn't installed")
    pytest.importorskip("django", reason="the extra celeriac[django] isn't installed")
    program = find_tool("prometheus")
    url = f"shm://t-{secrets.token_hex(6)}"
    with celeriac.connect(url) as store, serving(url) as address:
        everything.fill(store)
        with prometheus(program, pack, tmp_path, address) as found:
            assert found.wait_for("celeriac:memory:ratio")
            assert found.query("up")[0]["metric"]["job"] == "celeriac"
            exposed = everything.exposed(store.metrics.exposition(own=True).decode())
            assert [name for name in exposed if not found.query(name)] == []
            for name in promql.recorded(pack / "prometheus/rules/mixins.yml"):
                found.wait_for(name)
            (mixed,) = found.query("django_cache_get_total")
            assert mixed["metric"]["backend"] == "c"
            assert mixed["value"][1] == "2"
            for path in (pack / "grafana/dashboards").iterdir():
                for query in promql.queries(path):
                    found.query(promql.filled(query))
            with pytest.raises(AssertionError, match="parse error"):
                found.query("sum(")
            store.destroy(force=True)
            assert found.wait_for("celeriac_up == 0")
