"""The page admin/cache/stats in a real browser: policy, live curves, a phone, the dark, clicks."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import browser as browsers
import pytest

import celeriac

pytestmark = pytest.mark.worker
SUPPORT = Path(__file__).parent / "support"
PATIENCE = 60


class Site(NamedTuple):
    browser: Any
    address: str
    store: celeriac.Store

    @property
    def page(self) -> str:
        return f"{self.address}/admin/cache/stats"

    def log_in(self, name: str) -> None:
        self.browser.delete_all_cookies()
        self.browser.get(self.page)
        for field in ("username", "password"):
            self.browser.find_element("name", field).send_keys(name)
        self.browser.find_element("css selector", "[type=submit]").click()
        self.until(lambda: self.browser.current_url == self.page)

    def until(self, true: Callable[[], Any]) -> Any:
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.browser, PATIENCE, poll_frequency=0.05).until(lambda _: true())

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def text(self, name: str) -> str:
        script = "return document.querySelector(`[data-text='${arguments[0]}']`).textContent"
        return str(self.run(script, name))

    def line(self, name: str) -> str:
        script = "return document.querySelector(`[data-line='${arguments[0]}']`)"
        return str(self.run(f"{script}.getAttribute('points')", name))

    def complaints(self) -> list[str]:
        """What is in the console, but for the icon that the site doesn't have."""
        logged = self.browser.get_log("browser")
        return [e["message"] for e in logged if "/favicon.ico" not in e["message"]]


@pytest.fixture(scope="module")
def driven() -> Iterator[Any]:
    try:
        started = browsers.start()
    except browsers.Unavailable as error:
        pytest.skip(str(error))
    yield started
    started.quit()


@pytest.fixture
def site(driven: Any, location: str, tmp_path: Path) -> Iterator[Site]:
    """A site with something of everything on its page, and `boss` logged in."""
    command = [sys.executable, str(SUPPORT / "admin_site.py"), location, str(tmp_path / "db")]
    with (
        celeriac.connect(location) as store,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as served,
    ):
        assert served.stdout is not None
        address = served.stdout.readline().decode().strip()
        assert address
        browsers.resize(driven, 1280, 900)
        browsers.prefer(driven, "light")
        with fill(store, address):
            driven.get_log("browser")
            found = Site(driven, address, store)
            found.log_in("boss")
            yield found
            driven.get("about:blank")
        served.communicate()


def fill(store: celeriac.Store, address: str) -> celeriac.Lock:
    """Returns a lock, to be held while one looks."""
    cache = store.cache("django", lead=":1:")
    for number in range(200):
        cache.set(f":1:product:{number}", {"price": number})
        cache.set(f":1:user:{number}", "x" * 100)
        cache.get(f":1:product:{number}")
        cache.get(f":1:basket:{number}")
    mail = store.queue("mail", max_deliveries=1)
    mail.put_many(["a", "b", "c"])
    for message in mail.get_many(2, 0):
        message.nack(reason="no")
    for page in ("slow", "page"):
        urllib.request.urlopen(f"{address}/{page}").close()
    for _ in range(3):
        with pytest.raises(urllib.error.HTTPError, match="429") as refused:
            urllib.request.urlopen(f"{address}/page")
        refused.value.close()
    return store.lock("nightly report")


def test_live_without_a_complaint(site: Site) -> None:
    cache = site.store.cache("django", lead=":1:")
    waiting = site.run("return document.querySelector('.celeriac-live').hidden")
    assert waiting is False
    before, hits = site.line("hits"), site.text("hits-more")
    assert hits == "200 in all"
    for number in range(150):
        cache.get(f":1:product:{number}")
    site.store.queue("mail").put("d")
    site.until(lambda: site.text("hits-more") == "350 in all")
    site.until(lambda: len(site.line("hits").split()) > 2)
    assert site.line("hits") != before
    assert site.text("queue-0-ready") == "2"
    assert site.run("return document.querySelector('[role=status]').textContent") == (
        "Updated every two seconds."
    )
    assert site.complaints() == []


def test_the_policy_holds_here(site: Site) -> None:
    """What the other tests would see if there were anything: this browser does complain."""
    site.run("document.body.setAttribute('style', 'color: red')")
    site.run("document.body.insertAdjacentHTML('beforeend', '<p style=\"color: red\">')")
    complaints = site.until(site.complaints)
    assert "Content Security Policy" in complaints[0]


def test_pause(site: Site) -> None:
    button = site.browser.find_element("css selector", ".celeriac-pause")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    site.until(lambda: "Paused." in site.run("return document.querySelector('main').innerText"))
    shown = site.text("hits-more")
    site.store.cache("django").get(":1:product:1")
    asked = "return performance.getEntriesByType('resource').filter(e => e.name.endsWith('?live'))"
    count = site.run(f"{asked}.length")
    site.run("return new Promise(done => setTimeout(done, 2500))")
    assert site.run(f"{asked}.length") <= count + 1  # one was under way
    assert site.text("hits-more") == shown
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    site.until(lambda: site.text("hits-more") != shown)


def test_other_queues_and_a_session_that_ended(site: Site) -> None:
    assert not site.browser.find_element("css selector", ".celeriac-changed").is_displayed()
    site.store.queue("another").put_many(["1"] * 7)  # before `mail`: its row must not become this
    changed = site.browser.find_element("css selector", ".celeriac-changed")
    site.until(changed.is_displayed)
    assert site.text("queue-0-ready") == "1"
    site.browser.delete_all_cookies()
    state = site.browser.find_element("css selector", ".celeriac-state")
    site.until(lambda: "log in again" in state.text)


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone(site: Site, width: int) -> None:
    browsers.resize(site.browser, width, 844, mobile=True)
    site.browser.get(site.page)
    assert site.run("return innerWidth") == width
    assert site.run("return document.documentElement.scrollWidth") == width
    too_wide = """
        return [...document.querySelectorAll('#content-main *')].filter(each =>
            !each.closest('.celeriac-scroll') && each.getBoundingClientRect().right > innerWidth
        ).map(each => each.outerHTML)"""
    assert site.run(too_wide) == []
    small = """
        return [...document.querySelectorAll('#content-main button')]
            .map(each => each.getBoundingClientRect())
            .filter(box => box.height < 44 || box.width < 44)"""
    assert site.run(small) == []


CONTRASTS = """
const shown = new Map();
const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
const parts = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return canvas.getImageData(0, 0, 1, 1).data;
};
const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = each => {
    for (; each; each = each.parentElement) {
        const colour = parts(getComputedStyle(each).backgroundColor);
        if (colour[3] === 255) return colour;
    }
    return [255, 255, 255];
};
const contrast = (a, b) => {
    const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
};
for (const each of document.querySelectorAll('#content-main *')) {
    const style = getComputedStyle(each), line = each.matches('polyline');
    const text = [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!line && !text) continue;
    const found = contrast(parts(line ? style.stroke : style.color), behind(each));
    const name = line ? 'line' : each.tagName + '.' + each.className;
    shown.set(name, Math.min(found, shown.get(name) ?? found));
}
return [...shown];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(site: Site, scheme: str) -> None:
    browsers.prefer(site.browser, scheme)
    background = site.run("return getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(18, 18, 18)")
    found = dict(site.run(CONTRASTS))
    assert {"H2.", "TD.", "TH.", "DT.", "STRONG.", "BUTTON.", "SPAN.", "line"} <= found.keys()
    assert {name: ratio for name, ratio in found.items() if ratio < 4.5} == {}


UNNAMED = """
const named = each => (each.ariaLabel || each.textContent || '').trim() ||
    document.getElementById(each.getAttribute('aria-labelledby') || '')?.textContent;
const main = document.querySelector('#content');
const all = selector => [...main.querySelectorAll(selector)];
const ids = [...document.querySelectorAll('[id]')].map(each => each.id);
const levels = all('h1, h2, h3').map(each => Number(each.tagName[1]));
const buttons = all('button').map(each => named(each));
return {
    'without a name': all('button, a, section, [role=region]').filter(each => !named(each)),
    'no caption': all('table').filter(each => !each.caption?.textContent.trim()),
    'cells of no head': all('table').filter(table =>
        [...table.rows].some(row => row.cells.length !== table.rows[0].cells.length)),
    'heads without scope': all('th').filter(each => !each.scope),
    'empty heads': all('th').filter(each => !each.textContent.trim()),
    'ids twice': ids.filter((id, place) => ids.indexOf(id) !== place),
    'levels left out': levels.filter((level, place) => level > (levels[place - 1] ?? 0) + 1),
    'curves that are read out': all('svg').filter(each => each.ariaHidden !== 'true'),
    'buttons of one name': buttons.filter((name, place) => buttons.indexOf(name) !== place),
    'scrolled by mouse only': all('*').filter(each =>
        each.scrollWidth > each.clientWidth + 1 && each.tabIndex < 0 &&
        getComputedStyle(each).overflowX === 'auto'),
    'no language': [...document.querySelectorAll('html:not([lang])')],
    'fields without label': all('input:not([type=hidden]), select, textarea'),
}
"""


def test_for_screen_readers(site: Site) -> None:
    found = site.run(UNNAMED)
    assert {what: places for what, places in found.items() if places} == {}
    tree = site.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [
        (node["role"]["value"], node.get("name", {}).get("value"))
        for node in tree
        if not node["ignored"]
    ]
    assert ("heading", "Cache and queues") in roles
    assert ("rowheader", "product") in roles
    assert ("columnheader", "HIT RATIO") in roles or ("columnheader", "Hit ratio") in roles
    assert ("button", "Clear product of django") in roles
    assert ("region", "Key prefixes") in roles


def test_actions_by_clicking(site: Site) -> None:
    site.run("document.querySelector('.celeriac-pause').click()")

    def click(row: str, title: str) -> str:
        """Click the button in that row; what the page says then."""
        path = f"//tr[normalize-space(th)='{row}']//button[starts-with(., '{title}')]"
        button = site.browser.find_element("xpath", path)
        site.run("arguments[0].scrollIntoView({block: 'center'})", button)
        page = site.browser.find_element("tag name", "html").id
        button.click()
        site.until(lambda: site.browser.find_element("tag name", "html").id != page)
        said = site.until(lambda: site.browser.find_elements("css selector", ".messagelist li"))
        return str(said[0].text)

    def rows(section: str) -> list[str]:
        found = site.browser.find_elements("css selector", f"[aria-labelledby={section}] tbody th")
        return [each.text for each in found]

    assert "product" in rows("celeriac-prefixes")
    assert click("product", "Clear").endswith("'django': 200 entries.")
    assert len(site.store.cache("django").keys(":1:product:*")) == 0
    assert len(site.store.cache("django").keys(":1:user:*")) == 200
    assert click("mail", "Retry dead").endswith("2 messages.")
    assert site.text("queue-0-dead") == "0"
    assert site.text("queue-0-ready") == "3"
    limited = rows("celeriac-limited")
    assert limited == ["guest:ip 127.0.0.1"]
    assert click(limited[0], "Reset").startswith("Reset the limit")
    assert rows("celeriac-limited") == []
    urllib.request.urlopen(f"{site.address}/page").close()
    assert site.complaints() == []


def test_who_may_only_look_has_no_buttons(site: Site) -> None:
    site.log_in("clerk")
    assert site.browser.find_elements("css selector", "table button") == []
    assert site.run("return document.querySelectorAll('#content-main table').length") == 7


def test_without_javascript_it_says_the_same(site: Site) -> None:
    site.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        site.browser.get(site.page)
        assert not site.browser.find_element("css selector", ".celeriac-live").is_displayed()
        tiles = site.browser.find_element("css selector", ".celeriac-tiles").text
        assert "50.0 %" in tiles
        site.browser.find_element("xpath", "//tr[th='mail']//button").click()
        site.until(lambda: site.browser.find_elements("css selector", ".messagelist li"))
    finally:
        site.browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert site.store.queue("mail").counts().dead == 0
