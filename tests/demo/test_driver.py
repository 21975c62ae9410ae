"""The load driver, against a small server that answers as it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from celeriac.demo.load import driver, messages
from celeriac.demo.plan import LOGIN, PRICE, PRODUCT, WEBHOOK

Reply = tuple[int, dict[str, str], bytes]


class Server(ThreadingHTTPServer):
    """Notes what it is asked; `answer` decides what it says, and None drops the connection."""

    daemon_threads = True

    def __init__(self, answer: Callable[[str, str], Reply | None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        self.connections = 0

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        cookie = self.headers.get("Cookie", "")
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.path, cookie))
        reply = self.server.answer(self.path, cookie)
        if reply is None:
            self.close_connection = True
            return
        status, headers, body = reply
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[str, str], Reply | None]], Server]]:
    servers = []

    def start(answer: Callable[[str, str], Reply | None]) -> Server:
        server = Server(answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def run(server: Server, requests: list[tuple[str, int, int]], connections: int = 2) -> driver.Tally:
    return driver.Driver(server.address, connections).run(requests, 10, lambda tally: None)


def test_counts_hits_misses_and_failures(serve: Callable[..., Server]) -> None:
    answers = {
        "/products/1": (200, {"X-Demo-Cache": "hit"}, b"{}"),
        "/products/2": (200, {"X-Demo-Cache": "miss"}, b"{}"),
        "/products/3": (500, {}, b"oops"),
    }
    server = serve(lambda path, cookie: answers[path])
    tally = run(server, [(PRODUCT, number, 0) for number in (1, 2, 3, 1)])
    assert tally.outcomes.decode() == "hm!h"
    assert tally.answered == 3
    assert len(tally.milliseconds[PRODUCT]) == 3
    assert len(tally.failed) == 1
    assert "product 3: status 500" in tally.failed[0]
    assert sum(tally.timeline) == 3


def test_sends_each_request_once_and_in_order(serve: Callable[..., Server]) -> None:
    server = serve(lambda path, cookie: (200, {}, b"{}"))
    run(server, [(PRODUCT, number, 0) for number in range(1, 101)], connections=1)
    assert [path for path, _ in server.asked] == [f"/products/{n}" for n in range(1, 101)]
    assert server.connections == 100 / driver.REQUESTS_PER_CONNECTION


def test_dropped_connection_is_a_failure_and_the_load_goes_on(serve: Callable[..., Server]) -> None:
    server = serve(lambda path, cookie: None if path.endswith("/2") else (200, {}, b"{}"))
    tally = run(server, [(PRODUCT, number, 0) for number in (1, 2, 3, 4)], connections=1)
    assert tally.outcomes.decode() == ".!.."
    assert "no answer" in tally.failed[0]


def test_server_that_is_gone_ends_the_load(serve: Callable[..., Server]) -> None:
    server = serve(lambda path, cookie: None)
    server.shutdown()
    server.server_close()
    tally = run(server, [(PRODUCT, 1, 0)] * 1_000)
    assert tally.answered == 0
    assert len(tally.failed) == driver.FAILURES_TO_STOP


def test_session_of_the_login_is_sent_later(serve: Callable[..., Server]) -> None:
    cookie = {"Set-Cookie": "sessionid=abc123; HttpOnly; Path=/"}
    server = serve(lambda path, _: (200, cookie if path == "/login" else {}, b"{}"))
    run(server, [(LOGIN, 0, 4), (PRODUCT, 1, 4), (PRODUCT, 1, 5)], connections=1)
    sent = [cookie for _, cookie in server.asked]
    assert "sessionid" not in sent[0]
    assert "sessionid=abc123" in sent[1]
    assert "sessionid" not in sent[2]


def test_page_older_than_a_confirmed_change_is_stale(serve: Callable[..., Server]) -> None:
    def answer(path: str, cookie: str) -> Reply:
        version = "2" if path.endswith("price") or path == "/products/8" else "1"
        return 200, {"X-Demo-Version": version}, b"{}"

    changes = [(PRICE, 7, 1), (PRICE, 8, 1)]
    views = [(PRODUCT, 7, 0), (PRODUCT, 8, 0), (PRODUCT, 9, 0)]
    assert run(serve(answer), changes + views, connections=1).stale == 1
    assert run(serve(answer), views + changes, connections=1).stale == 0


def test_acknowledged_tasks_are_noted(serve: Callable[..., Server]) -> None:
    body = json.dumps({"tasks": ["a", "b"]}).encode()
    server = serve(lambda path, cookie: (202, {}, body))
    assert run(server, [(WEBHOOK, 1, 0)]).tasks == ["a", "b"]


def test_time_ends_the_load(serve: Callable[..., Server]) -> None:
    server = serve(lambda path, cookie: (200, {}, b"{}"))
    tally = driver.Driver(server.address, 2).run([(PRODUCT, 1, 0)] * 10**6, 0.2, lambda t: None)
    assert 0 < tally.answered < 10**6
    assert len(tally.outcomes.decode().rstrip()) == tally.answered


def test_incomplete_answers_are_waited_for() -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX-Demo-Cache: hit\r\n\r\nbody"
    for length in range(len(whole)):
        assert messages.decode(whole[:length]) is None
    answer = messages.decode(whole)
    assert answer is not None
    assert (answer.status, answer.cache, answer.body) == (200, "hit", b"body")
