"""The demo's page, served by several processes of which one is killed."""

import os
import re
import signal
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from tests.demo.page.visit import Visit
from tests.helpers.chromium import needs_chromium
from tests.helpers.demo_process import Demo, running_demo

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--workers", "3", "--refresh-time-s", "3", "--word-delay-s", "0.002") as demo:
        demo.wait_for_line(r"serves \(3 now\)")
        yield demo


def test_killing_the_process_that_answers_hurts_nobody(browser: Browser, demo: Demo) -> None:
    visit = Visit(browser, demo)
    group = visit.page.locator("#group")
    expect(group).to_contain_text("3 processes share these keys")
    expect(group.locator(".process")).to_have_count(3)
    expect(group.locator(".process.answered")).to_have_count(1)
    # A key is seen before it is published.
    visit.page.wait_for_selector(".lane.coming")
    assert visit.say("Hello")
    note = visit.page.locator(".note").last.inner_text()
    answered = re.search(r"answered by process (\d+)$", note)
    assert answered, note
    os.kill(int(answered[1]), signal.SIGKILL)
    assert visit.say("Are you still there?")
    other = visit.page.locator(".note").last.inner_text()
    assert re.search(r"answered by process \d+$", other)
    assert not other.endswith(answered[0])
    expect(group.locator(".process.gone")).to_have_text(f"{answered[1]} gone")
    expect(group).to_contain_text("3 processes share these keys")
    assert visit.say("And now?")
    expect(visit.page.locator(".note.bad")).to_have_count(0)
    expect(visit.page.locator(".refusal")).to_have_count(0)
    visit.page.close()


def test_one_process_shows_no_group(browser: Browser) -> None:
    with running_demo() as demo:
        visit = Visit(browser, demo)
        expect(visit.page.locator(".lane.current")).to_have_count(1)
        expect(visit.page.locator("#group")).to_be_hidden()
        visit.page.close()
