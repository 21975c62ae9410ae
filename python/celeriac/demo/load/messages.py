"""The bytes of the requests and of the answers: as much HTTP/1.1 as the driver needs."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from dataclasses import dataclass

from ..options import ORDERS
from ..plan import ANALYTICS, LIST, LOGIN, PRICE, PRODUCT, WEBHOOK, Request

SECRET = "shared with the payment provider"
PASSWORD = "celery root"
CSRF = "d" * 32
STATES = ("paid", "sent", "returned")
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
JSON = "Content-Type: application/json\r\n"


@dataclass
class Answer:
    """What the driver looks at in an answer; `cache` is "hit", "miss" or empty."""

    status: int
    cache: str
    version: int
    session: str
    body: bytes
    size: int


def encode(request: Request, session: str) -> bytes:
    """The request as it goes over the wire, with the customer's session where he has one."""
    kind, argument, customer = request
    if kind == PRODUCT:
        return _message("GET", f"/products/{argument}", session)
    if kind == LIST:
        return _message("GET", f"/products?page={argument}", session)
    if kind == ANALYTICS:
        return _message("GET", f"/analytics?days={argument}", session)
    if kind == LOGIN:
        form = f"username=customer{customer}&password={PASSWORD.replace(' ', '+')}"
        return _message("POST", "/login", "", form, FORM)
    if kind == PRICE:
        cents = 100 + argument * 37 % 9_900
        return _message("POST", f"/products/{argument}/price", session, f"cents={cents}", FORM)
    assert kind == WEBHOOK, kind
    body, signature = event(argument)
    return _message("POST", "/webhooks/orders", "", body, f"{JSON}X-Signature: {signature}\r\n")


def decode(data: bytes) -> Answer | None:
    """The answer that `data` begins with, or None while some of it is missing."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return None
    lines = head.decode("latin-1").split("\r\n")
    answer = Answer(int(lines[0].split(" ", 2)[1]), "", 0, "", b"", 0)
    length = -1
    for line in lines[1:]:
        name, _, value = line.partition(": ")
        name = name.lower()
        if name == "content-length":
            length = int(value)
        elif name == "x-demo-cache":
            answer.cache = value
        elif name == "x-demo-version":
            answer.version = int(value)
        elif name == "set-cookie" and value.startswith("sessionid="):
            answer.session = value[len("sessionid=") :].partition(";")[0]
    if length < 0:
        raise ValueError(f"an answer without a length: {lines[0]}")
    if len(rest) < length:
        return None
    answer.body = rest[:length]
    answer.size = len(head) + len(separator) + length
    return answer


def _message(method: str, path: str, session: str, body: str = "", headers: str = "") -> bytes:
    cookies = f"csrftoken={CSRF}" + (f"; sessionid={session}" if session else "")
    if body:
        headers += f"X-CSRFToken: {CSRF}\r\nContent-Length: {len(body.encode())}\r\n"
    return (
        f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookies}\r\n{headers}\r\n{body}"
    ).encode()


def event(number: int) -> tuple[str, str]:
    """What the payment provider sends, always the same for a number, and its signature."""
    rng = random.Random(number)
    told = {"id": number, "order": rng.randrange(1, ORDERS + 1), "status": rng.choice(STATES)}
    body = json.dumps(told)
    return body, hmac.new(SECRET.encode(), body.encode(), hashlib.sha256).hexdigest()
