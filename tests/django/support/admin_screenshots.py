"""The pictures of the page admin/cache/stats in `docs/`: a site at work for a minute, photographed.

python tests/django/support/admin_screenshots.py docs/images
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import browser as browsers

import celeriac

SUPPORT = Path(__file__).parent
SECONDS = 65
PAGES = ("product", "category", "basket", "session")


def visit(url: str) -> None:
    """A web process: reads and writes the cache, puts tasks."""
    chance, store = random.Random(1), celeriac.connect(url)
    cache, mail = store.cache("django", lead=":1:"), store.queue("mail")
    reports = store.queue("reports", max_deliveries=1)
    while True:
        for _ in range(chance.randint(10, 60)):
            prefix = chance.choice(PAGES)
            key = f":1:{prefix}:{int(chance.paretovariate(0.9)) % 3000}"
            if cache.get(key) is None:
                cache.set(key, prefix * chance.randint(5, 200))
        mail.put_many(["to whom"] * chance.randint(0, 6))
        if chance.random() < 0.05:
            reports.put("monthly", delay=chance.choice((0, 600)))
        time.sleep(0.05)


def work(url: str) -> None:
    """A worker: takes tasks, and fails at some."""
    chance, store = random.Random(2), celeriac.connect(url)
    mail, reports = store.queue("mail"), store.queue("reports")
    while True:
        for message in mail.get_many(chance.randint(1, 5), 0):
            time.sleep(0.01)
            message.ack()
        message = reports.get(0)
        if message is not None:
            message.nack(reason="no printer")
        time.sleep(0.02)


def look(browser: Any, address: str, folder: Path) -> None:
    page = f"{address}/admin/cache/stats"
    browser.get(page)
    for field in ("username", "password"):
        browser.find_element("name", field).send_keys("boss")
    browser.find_element("css selector", "[type=submit]").click()
    for number in range(SECONDS):
        time.sleep(1)  # the page asks for its numbers meanwhile
        if number % 20 == 0:
            with suppress(urllib.error.HTTPError):
                for path in ("slow", "page", "page"):
                    urllib.request.urlopen(f"{address}/{path}").close()
    for name, width, height, scheme in (
        ("light", 1200, 760, "light"),
        ("dark", 1200, 760, "dark"),
        ("phone", 390, 844, "dark"),
    ):
        browsers.prefer(browser, scheme)
        browsers.resize(browser, width, height, mobile=width < 600)
        browser.get(page)
        time.sleep(3)
        browser.save_screenshot(str(folder / f"admin-{name}.png"))
    browsers.prefer(browser, "light")
    browsers.resize(browser, 1200, 760)
    browser.get(page)
    script = "document.getElementById('celeriac-prefixes').scrollIntoView()"
    browser.execute_script(script)
    time.sleep(1)
    browser.save_screenshot(str(folder / "admin-tables.png"))


def started(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    """`python -m ...`, as short as the page will show it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    modules = f"{SUPPORT}:{os.environ.get('PYTHONPATH', '')}"
    return subprocess.Popen(
        ["python", "-m", *arguments],
        env={**os.environ, "PATH": path, "PYTHONPATH": modules},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        **more,
    )


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    url = f"shm://shop-{os.getpid()}"
    with tempfile.TemporaryDirectory() as place, celeriac.connect(url, memory="64M") as store:
        served = started("admin_site", url, "db", cwd=place)
        others = [started("admin_screenshots", name, url) for name in ("visit", "work")]
        try:
            assert served.stdout is not None
            address = served.stdout.readline().strip()
            browser = browsers.start()
            try:
                with store.lock("nightly report"):
                    look(browser, address, folder)
            finally:
                browser.quit()
        finally:
            for process in (*others, served):
                process.kill()
                process.communicate()
        store.destroy(force=True)


if __name__ == "__main__":
    if sys.argv[1] in ("visit", "work"):
        {"visit": visit, "work": work}[sys.argv[1]](sys.argv[2])
    main(Path(sys.argv[1]))
