"""Somebody who visits the shop, from an address of their own, and may sign in."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from .load.messages import CSRF, event

ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Answer:
    """Its headers have small letters."""

    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Visitor:
    """One connection, kept. `address` is what a proxy before the shop would say of the visitor."""

    def __init__(self, port: int, address: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
        self._address = address
        self._cookies = {"csrftoken": CSRF}

    def get(self, path: str) -> Answer:
        """Look at a page. Raises OSError when there is no answer."""
        return self._ask("GET", path, "", {})

    def sign_in(self, name: str, password: str) -> Answer:
        """Sign in; later requests are this user's."""
        form = urlencode({"username": name, "password": password})
        return self._ask(
            "POST",
            "/login",
            form,
            {"Content-Type": "application/x-www-form-urlencoded", "X-CSRFToken": CSRF},
        )

    def send_event(self, number: int) -> Answer:
        """Call the webhook, as the payment provider does."""
        body, signature = event(number)
        headers = {"Content-Type": "application/json", "X-Signature": signature}
        return self._ask("POST", "/webhooks/orders", body, headers)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _ask(self, method: str, path: str, body: str, headers: dict[str, str]) -> Answer:
        cookies = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
        own = {"X-Forwarded-For": self._address, "Cookie": cookies}
        try:
            self._connection.request(method, path, body or None, {**own, **headers})
            response = self._connection.getresponse()
            text = response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"{method} {path}: {error!r}") from error
        for name, value in response.getheaders():
            if name.lower() == "set-cookie":
                cookie, _, rest = value.partition(";")[0].partition("=")
                self._cookies[cookie] = rest
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, text)
