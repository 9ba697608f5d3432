"""A person reads the site in a browser: by day, by night, on a phone, and with nobody else to ask."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.helpers.chromium import needs_chromium

pytestmark = needs_chromium

Visit = Callable[..., Page]
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def visit(url: str, browser: Browser) -> Iterator[Visit]:
    """Opens a page of the site. In the end, nothing was asked of another host, and nothing went wrong."""
    faults: list[str] = []
    contexts = []

    def answer(route: Route) -> None:
        if route.request.url.startswith(f"{url}/"):
            route.continue_()
        else:
            faults.append(route.request.url)
            route.abort()

    def opened(path: str, scheme: Literal["light", "dark"] = "light", width: int = 1280, height: int = 900) -> Page:
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
        contexts.append(context)
        page = context.new_page()
        page.route("**/*", answer)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("response", lambda response: faults.append(response.url) if response.status >= 400 else None)
        page.goto(f"{url}/{path}")
        page.wait_for_load_state("networkidle")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def test_each_page_opens_without_a_fault(visit: Visit, site: Path, url: str) -> None:
    page = visit("index.html")
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":
            page.goto(f"{url}/{path.relative_to(site).as_posix()}")
            assert page.locator("h1").first.inner_text(), path


def brightness(page: Page, of: str) -> float:
    """Return how bright the page or its text is, from 0 to 255."""
    colour = page.evaluate("(of) => getComputedStyle(document.body)[of]", of)
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_it_is_bright_by_day_and_dark_by_night(visit: Visit) -> None:
    day, night = visit("index.html", "light"), visit("index.html", "dark")
    assert brightness(day, "backgroundColor") > 230
    assert brightness(day, "color") < 100
    assert brightness(night, "backgroundColor") < 40
    assert brightness(night, "color") > 150


def test_the_first_page_begins_with_the_picture_that_explains(visit: Visit) -> None:
    pictures = visit("index.html").locator("article img")
    first = pictures.first.bounding_box()
    assert first is not None
    assert first["y"] + first["height"] < 900
    for picture in pictures.all():
        assert picture.evaluate("(picture) => picture.complete && picture.naturalWidth > 0")
        assert picture.get_attribute("alt")


@pytest.mark.parametrize("path", ["index.html", "client.html", "security.html", "api/server_keys.html"])
def test_a_phone_shows_the_whole_width(visit: Visit, path: str) -> None:
    page = visit(path, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_the_search_finds_a_name(visit: Visit) -> None:
    page = visit("index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("periodic_refresh")
    # Enter opens the first result, which is another one until the search is through.
    expect(page.get_by_role("option", selected=True)).to_contain_text("periodic_refresh")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/(api|fastapi)"))
