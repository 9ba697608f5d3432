"""Whether the demo's page can be read and used: at every width, by keyboard, with a screen reader."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.chromium import chromium, needs_chromium
from tests.demo_process import Demo, running_demo
from tests.demo_visit import Visit

pytestmark = needs_chromium

# WCAG 2.2, level AA, for text of normal size.
LEAST_CONTRAST = 4.5
CONTRASTS_OF_TEXT = Path(__file__).with_name("page_contrast.js").read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--refresh-time-s", "1.5", "--overlap-s", "1", "--word-delay-s", "0.005") as demo:
        yield demo


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Visit]:
    visit = Visit(browser, demo)
    yield visit
    visit.page.close()


@pytest.mark.parametrize("width", [320, 420, 800, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_at_every_width_in_light_and_dark(browser: Browser, demo: Demo, width: int, scheme: str) -> None:
    visit = Visit(browser, demo, viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce")
    visit.say("Hello")
    page = visit.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(CONTRASTS_OF_TEXT)
    assert len(contrasts) > 30
    assert [text for text in contrasts if text["contrast"] < LEAST_CONTRAST] == []
    page.close()


def test_it_can_be_used_by_keyboard_and_has_names_for_everything(visit: Visit) -> None:
    page = visit.page
    nameless = page.locator("button, input").evaluate_all(
        "all => all.filter((one) => !one.innerText?.trim() && !one.labels?.length).map((one) => one.outerHTML)"
    )
    assert nameless == []
    reached = set()
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = page.evaluate("[document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
        reached.add(focused[0])
        assert focused[1] != "none", f"{focused[0]} does not show that it has the focus"
        if focused[0] == "agree":
            break
    assert {"conversation", "prompt", "send", "hold", "wire", "agree"} <= reached
