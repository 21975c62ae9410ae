"""A headless Chromium, driven by selenium; `Unavailable` says what is missing."""

from __future__ import annotations

import os
import shutil
from typing import Any


class Unavailable(Exception):
    """And what to install."""


def start() -> Any:
    """A browser with a log of its console, in a window of 1280 by 900.

    Raises:
        Unavailable: something it needs isn't here.
    """
    try:
        from selenium import webdriver
    except ImportError:
        raise Unavailable("no selenium: pip install '.[test]'") from None
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise Unavailable("no chromium: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--window-size=1280,900",
        "--force-device-scale-factor=1",
        "--hide-scrollbars",
        "--disable-dev-shm-usage",  # that is where stores are
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
    ):
        options.add_argument(argument)
    if os.geteuid() == 0:  # as in a container: Chromium's sandbox doesn't start for root
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    return webdriver.Chrome(options=options, service=service)


def resize(browser: Any, width: int, height: int = 800, mobile: bool = False) -> None:
    """The size of what is seen, whatever the window's own least size is."""
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile},
    )


def prefer(browser: Any, scheme: str) -> None:
    """What the person has told the system: `light` or `dark`."""
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": scheme}]},
    )
