"""A headless Chromium for the tests of the demo's page."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="Chromium is missing: `apt-get install chromium` brings it"
)


@contextmanager
def chromium() -> Iterator[Browser]:
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            # The sandbox needs privileges that containers lack; the page is our own.
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-gpu", *quiet],
        )
        try:
            yield browser
        finally:
            browser.close()
