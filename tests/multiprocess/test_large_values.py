"""Several processes that write values of a quarter of the memory: each has to give way to the next.

What one is writing can't be evicted until it is done, so another may have to wait for it. That is
no lack of memory.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import celeriac

FORK = multiprocessing.get_context("fork")
SIZES = (1, 1000, 20_000, 1_000_000)


def write(url: str, number: int, results: Any) -> None:
    store = celeriac.connect(url)
    caches = [store.cache("a"), store.cache("b")]
    refused = ""
    for i in range(300):
        size = SIZES[(i + number) % len(SIZES)]
        try:
            caches[i % 2].set(f"k{i * 7 % 40}", b"x" * size, tags=["t"] if i % 3 else [])
        except celeriac.CeleriacError as error:
            refused = repr(error)
    results.put(refused)


def test_nobody_is_refused(url: str, child: Callable[..., Any]) -> None:
    url += "?memory=4M"
    with celeriac.connect(url):
        results = FORK.Queue()
        children = [child(FORK, write, url, number, results) for number in range(4)]
        assert [results.get(timeout=120) for _ in children] == [""] * 4
        for process in children:
            process.join(30)
            assert process.exitcode == 0
