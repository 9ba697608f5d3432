"""The keys on the demo's page, as they come and go with and without their server."""

import signal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.demo_page.chromium import needs_chromium
from tests.demo_page.visit import Visit
from tests.demo_process import Demo, running_demo

pytestmark = needs_chromium


def see_lane(page: Page, state: str, key: str) -> None:
    # Asked at each frame that the browser draws: `expect` asks once a second, and a state may last no longer.
    page.wait_for_function(
        "([state, key]) => [...document.querySelectorAll(`.lane.${state} code`)].some(code => code.innerText === key)",
        arg=[state, key],
    )


def test_keys_come_and_go_before_ones_eyes(visit: Visit) -> None:
    current = visit.page.locator(".lane.current code")
    first = current.inner_text()
    see_lane(visit.page, "overlap", first)
    assert current.inner_text() != first
    see_lane(visit.page, "wiped", first)


@pytest.mark.parametrize("refresh_time_s", ["0.1", "0.2", "0.3", "0.7331", "8"])
def test_now_is_on_the_axis_for_every_refresh_time(browser: Browser, refresh_time_s: str) -> None:
    with running_demo("--refresh-time-s", refresh_time_s) as demo:
        visit = Visit(browser, demo)
        expect(visit.page.locator(".now")).to_have_count(1)
        # Three refreshes ago, two, one, and the next.
        expect(visit.page.locator(".tick")).to_have_count(4)
        visit.page.close()


def test_the_key_agreement_is_proved_until_the_key_is_erased(visit: Visit, demo: Demo) -> None:
    visit.page.get_by_role("button", name="Agree on a secret").click()
    verdict = visit.page.locator("#proof-verdict")
    expect(verdict).to_have_text("Both sides hold the same secret.")
    key = visit.page.locator("#proof-server").inner_text()
    demo.wait_for_line(f"{key[:8]}… erased")
    visit.page.get_by_role("button", name="Again").click()
    expect(verdict).to_contain_text("Refused")
    expect(verdict).to_contain_text(key[:16])


def test_a_server_that_stops_is_missed(browser: Browser) -> None:
    with running_demo() as demo:
        visit = Visit(browser, demo)
        expect(visit.page.get_by_role("alert")).to_be_hidden()
    expect(visit.page.get_by_role("alert")).to_contain_text("does not answer")
    visit.page.close()


def test_a_server_that_hangs_is_missed_until_it_goes_on(browser: Browser) -> None:
    with running_demo() as demo:
        visit = Visit(browser, demo)
        notice, paused = visit.page.get_by_role("alert"), visit.page.locator(".timeline.paused")
        demo.process.send_signal(signal.SIGSTOP)
        try:
            expect(notice).to_contain_text("does not answer")
            expect(paused).to_have_count(1)
        finally:
            demo.process.send_signal(signal.SIGCONT)
        expect(notice).to_be_hidden()
        expect(paused).to_have_count(0)
        visit.page.close()


def test_a_server_that_was_started_again_has_other_keys(browser: Browser) -> None:
    with running_demo("--refresh-time-s", "600", "--word-delay-s", "0.005") as demo:
        visit = Visit(browser, demo)
        page, port = visit.page, str(demo.port)
        visit.say("Hello")
        chip, lanes, ticks = page.locator(".chip"), page.locator(".lane code"), page.locator(".tick")
        expect(chip).to_have_text("key current")
        first_key = lanes.inner_text()
        expect(ticks.last).to_have_attribute("data-at", "+600 s")
    expect(chip).to_have_text("key's state unknown")
    with running_demo("--refresh-time-s", "500", "--port", port):
        expect(chip).to_have_text("key erased: this recording stays closed")
        expect(page.locator(".timeline.paused")).to_have_count(0)
        expect(lanes).to_have_count(1)
        assert lanes.inner_text() != first_key
        expect(ticks.last).to_have_attribute("data-at", "+500 s")
        expect(page.locator(".now")).to_have_count(1)
    # Erased is erased, whether or not there is a server to ask.
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(chip).to_have_text("key erased: this recording stays closed")
    page.close()
