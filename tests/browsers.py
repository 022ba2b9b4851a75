"""Chromium for tests that look at a page as people do; they are skipped where it is missing."""

from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM, CHROMEDRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-background-networking "
    "--disable-component-update --disable-sync --no-first-run --hide-scrollbars "
    "--disable-dev-shm-usage"
).split()


@contextmanager
def opened_browsers(profiles):
    """Yield a function that starts browsers, each with a profile of its own, as people have."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if not (Path(CHROMIUM).exists() and Path(CHROMEDRIVER).exists()):
        pytest.skip("needs Debian's packages chromium and chromium-driver")
    started = []

    def browse(width=1280, height=900):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in [*FLAGS, f"--user-data-dir={profiles.mktemp('profile')}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(CHROMEDRIVER))
        driver.set_window_size(width, height)
        started.append(driver)
        return driver

    try:
        yield browse
    finally:
        for driver in started:
            driver.quit()
