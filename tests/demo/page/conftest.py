"""Fixtures for the demo's page: a browser, a demo whose keys live for seconds, and a visit of its page."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.demo.page.visit import Visit
from tests.helpers.chromium import chromium
from tests.helpers.demo_process import Demo, running_demo


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    """A demo."""
    with running_demo("--refresh-time-s", "1.5", "--overlap-s", "1", "--word-delay-s", "0.005") as demo:
        yield demo


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Visit]:
    """A visit of the demo's page."""
    visit = Visit(browser, demo)
    yield visit
    visit.page.close()
