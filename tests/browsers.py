"""Chromium for tests that look at a page as people do; they are skipped where it is missing."""

import io
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

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


def wait_until(condition, say=str):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited in vain: {say()!r}"
        time.sleep(0.02)


def download_to(driver, folder):
    allowed = {"behavior": "allow", "downloadPath": str(folder)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)


def set_screen(driver, width, height, scale, scheme):
    """Be a screen of that size in pixels of CSS, one narrower than 500 a phone."""
    size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def check_fits(driver, width, scheme):
    """Nothing is cut off at the side, and the ground is as light or dark as asked for."""
    assert driver.execute_script("return document.documentElement.scrollWidth") == width
    with Image.open(io.BytesIO(driver.get_screenshot_as_png())) as image:
        ground = sum(image.convert("RGB").getpixel((2, image.height // 2)))
    assert ground > 700 if scheme == "light" else ground < 120
