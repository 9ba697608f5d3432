"""The demo's timeline of keys, with a server that runs, stops, hangs or starts again."""

import re
import signal

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.demo.page.visit import Visit
from tests.helpers.chromium import needs_chromium
from tests.helpers.demo_process import Demo, running_demo

pytestmark = needs_chromium

# By how many pixels a lane's text reaches into its track.
OVERHANG_PX = """
    (state) => {
        const text = document.createRange();
        text.selectNodeContents(state);
        return text.getBoundingClientRect().right - state.closest(".lane").lastChild.getBoundingClientRect().left;
    }
"""


# Counts the frames that the browser draws while keys are replaced three times, and those in which no key is current. A
# lane counts if it is opaque, inside the timeline, and not covered.
FRAMES_WITHOUT_A_CURRENT_KEY = """
    async () => {
        const isSeen = (lane) => {
            const code = lane.querySelector("code");
            const { left, right, top, bottom } = code.getBoundingClientRect();
            const atItsMiddle = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
            return getComputedStyle(lane).opacity > 0.9 && atItsMiddle === code;
        };
        const newest = () => document.querySelector(".lane code").textContent;
        let [frames, without, rotations, before] = [0, 0, 0, newest()];
        while (rotations < 3) {
            await new Promise(requestAnimationFrame);
            frames += 1;
            if (![...document.querySelectorAll(".lane.current")].some(isSeen)) without += 1;
            if (newest() !== before) rotations += 1;
            before = newest();
        }
        for (let more = 0; more < 60; more++) {
            await new Promise(requestAnimationFrame);
            if (![...document.querySelectorAll(".lane.current")].some(isSeen)) without += 1;
        }
        return [frames, without];
    }
"""


def see_lane(page: Page, state: str, key: str) -> None:
    # This looks at each frame that the browser draws. `expect` looks once a second, and a state may be shorter.
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


def test_one_key_is_current_at_every_moment(visit: Visit) -> None:
    frames, without = visit.page.evaluate(FRAMES_WITHOUT_A_CURRENT_KEY)
    assert frames > 30
    assert without == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_planned_keys_look_like_the_legend_says_and_not_like_erased_ones(
    browser: Browser, demo: Demo, scheme: str
) -> None:
    visit = Visit(browser, demo, color_scheme=scheme)
    expect(visit.page.get_by_text("planned", exact=True)).to_be_visible()
    expect(visit.page.locator(".lane.erased")).not_to_have_count(0)
    look = "(one, pseudo) => { const { backgroundColor, borderStyle } = getComputedStyle(one, pseudo); return %s; }"
    colour, border = look % "backgroundColor", look % "borderStyle"
    planned, overlapping = visit.page.locator(".segment.ahead.current"), visit.page.locator(".segment.ahead.overlap")
    # The legend's sample has the colours of both.
    sample = visit.page.locator(".legend .planned").evaluate(
        "(one) => getComputedStyle(one, '::before').backgroundImage"
    )
    assert planned.first.evaluate(colour) in sample
    assert overlapping.first.evaluate(colour) in sample
    assert planned.first.evaluate(border) == overlapping.first.evaluate(border) == "none"
    assert visit.page.locator(".lane.erased .segment").first.evaluate(border) == "dashed"
    visit.page.close()


@pytest.mark.parametrize("refresh_time_s", ["0.1", "0.2", "0.3", "0.7331", "8"])
def test_now_is_on_the_axis_for_every_refresh_time(browser: Browser, refresh_time_s: str) -> None:
    with running_demo("--refresh-time-s", refresh_time_s) as demo:
        visit = Visit(browser, demo)
        expect(visit.page.locator(".now")).to_have_count(1)
        # Three refreshes ago, two, one, and the next.
        expect(visit.page.locator(".tick")).to_have_count(4)
        visit.page.close()


def test_keys_that_live_for_moments_are_seen(browser: Browser) -> None:
    with running_demo("--refresh-time-s", "0.2") as demo:
        visit = Visit(browser, demo)
        expect(visit.page.locator(".lane")).to_have_count(24)
        # Each lane is in place before the next key comes.
        visit.page.wait_for_function(
            "() => getComputedStyle(document.querySelector('.lane.current')).opacity === '1'", timeout=10_000
        )
        visit.page.close()


@pytest.mark.parametrize(
    ("refresh_time_s", "in_words", "first_tick", "left"),
    [
        ("0.7331", "0.733 seconds", "−2.2 s", r"0\.\d s"),
        ("1", "1 second", "−3 s", r"\d\.\d s"),
        ("90", "90 seconds", "−270 s", r"\d\d\.\d s"),
        ("600", "10 minutes", "−30 min", r"(10\.0|9\.\d) min"),
        ("7000", "117 minutes", "−350 min", r"11\d min"),
        ("86400", "24 hours", "−72 h", r"2[34]\.\d h"),
        ("1000000", "11.6 days", "−34.7 d", r"11\.\d d"),
    ],
)
def test_durations_are_told_in_units_that_people_read(
    browser: Browser, refresh_time_s: str, in_words: str, first_tick: str, left: str
) -> None:
    with running_demo("--refresh-time-s", refresh_time_s, "--word-delay-s", "0.001") as demo:
        visit = Visit(browser, demo, viewport={"width": 390, "height": 844})
        expect(visit.page.locator("[data-refresh]")).to_have_text(in_words)
        expect(visit.page.locator("[data-overlap]")).to_have_text(in_words)
        expect(visit.page.locator(".tick").first).to_have_attribute("data-at", first_tick)
        state = visit.page.locator(".lane.current .lane-label span")
        expect(state).to_have_text(re.compile(f"^replaced in {left}$"))
        assert state.evaluate(OVERHANG_PX) <= 0
        visit.page.close()


@pytest.mark.parametrize(("refresh_time_s", "kept"), [("86400", "60 min"), ("600", r"9\.\d+ min"), ("60", r"5\d s")])
def test_the_wire_tells_for_how_long_a_key_is_kept(browser: Browser, refresh_time_s: str, kept: str) -> None:
    with running_demo("--refresh-time-s", refresh_time_s, "--word-delay-s", "0.001") as demo:
        visit = Visit(browser, demo)
        visit.say("Hello")
        expect(visit.page.locator(".line.fetched .value")).to_have_text(re.compile(f"… for {kept}, signed by"))
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
        visit = Visit(browser, demo, viewport={"width": 1280, "height": 800})
        states = visit.page.locator(".lane-label span")
        expect(states).to_contain_text(["replaced in"])
        expect(visit.page.get_by_role("alert")).to_be_hidden()
    expect(visit.page.get_by_role("alert")).to_contain_text("does not answer")
    # The page shows nothing that it cannot know: neither which key is current nor what comes.
    expect(states).to_have_text(["state unknown"])
    expect(visit.page.locator(".lane.current")).to_have_count(0)
    expect(visit.page.locator(".ahead").locator("visible=true")).to_have_count(0)
    expect(visit.page.get_by_label("Your message")).to_be_in_viewport(ratio=1)
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
        expect(visit.page.locator(".lane.current")).to_have_count(1)
        visit.page.close()


def test_a_server_that_was_started_again_has_other_keys(browser: Browser) -> None:
    with running_demo("--refresh-time-s", "600", "--word-delay-s", "0.005") as demo:
        visit = Visit(browser, demo)
        page, port = visit.page, str(demo.port)
        visit.say("Hello")
        chip, lanes, ticks = page.locator(".chip"), page.locator(".lane code"), page.locator(".tick")
        expect(chip).to_have_text("key current")
        first_key = lanes.inner_text()
        expect(ticks.last).to_have_attribute("data-at", "+10 min")
    expect(chip).to_have_text("key's state unknown")
    with running_demo("--refresh-time-s", "500", "--port", port):
        expect(chip).to_have_text("key erased: this recording stays closed")
        expect(page.locator(".timeline.paused")).to_have_count(0)
        expect(lanes).to_have_count(1)
        assert lanes.inner_text() != first_key
        expect(ticks.last).to_have_attribute("data-at", "+8.33 min")
        expect(page.locator(".now")).to_have_count(1)
    # An erased key stays erased while the server does not answer.
    expect(page.get_by_role("alert")).to_contain_text("does not answer")
    expect(chip).to_have_text("key erased: this recording stays closed")
    page.close()


def test_each_message_says_that_its_key_is_signed_also_where_the_key_was_there_already(browser: Browser) -> None:
    with running_demo("--refresh-time-s", "500", "--word-delay-s", "0.005") as demo:
        visit = Visit(browser, demo)
        for messages in (1, 2):
            visit.say("hello")
            verified = visit.page.locator(".sealed-to .verified")
            expect(verified).to_have_count(messages)
            expect(verified.last).to_be_in_viewport()
            expect(verified.last).to_have_text("✓ verified")
        title = verified.last.get_attribute("title") or ""
        identity = re.search(
            r"ed25519:[A-Za-z0-9_-]{43} signed the key. It has that identity from the same server", title
        )
        assert identity
        fetched = visit.page.locator(".line.fetched .value")
        expect(fetched).to_have_count(1)
        expect(fetched).to_contain_text(f"signed by {identity[0][:16]}…")
        assert visit.complaints == []
        visit.page.close()
