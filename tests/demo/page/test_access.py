"""Whether the demo's page can be read and used: at every width, by keyboard, with a screen reader."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.demo.page.visit import PROMPT, Visit
from tests.helpers.chromium import needs_chromium
from tests.helpers.demo_process import Demo, running_demo

pytestmark = needs_chromium

# The least contrast that WCAG 2.2 asks for at level AA, for text of normal size.
LEAST_CONTRAST = 4.5
CONTRASTS_OF_TEXT = Path(__file__).with_name("contrast.js").read_text()
CHANGES_OF_TEXT = Path(__file__).with_name("changes.js").read_text()


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


def test_on_a_phone_nothing_is_out_of_view_or_cut_off(browser: Browser, demo: Demo) -> None:
    visit = Visit(browser, demo, viewport={"width": 390, "height": 844})
    page, prompt = visit.page, visit.page.get_by_label("Your message")
    expect(prompt).to_be_in_viewport(ratio=1)
    expect(page.get_by_text("current", exact=True)).to_be_in_viewport(ratio=1)
    page.get_by_label(re.compile("Keep using the same key")).check()
    visit.say("Hello")
    expect(prompt).to_be_in_viewport(ratio=1)
    # The narrow page has no column for tags.
    expect(page.get_by_text("tag", exact=True)).to_be_hidden()
    chip = page.locator(".chip")
    expect(chip).to_have_text("key erased: this recording stays closed")
    left_of = "(element) => element.getBoundingClientRect().left"
    assert chip.evaluate(left_of) == page.locator(".sealed-to").evaluate(left_of)
    visit.say("Hello again")
    refusal = page.locator(".line.refused .value")
    assert refusal.evaluate("(value) => value.scrollWidth - value.clientWidth") == 0
    expect(page.locator(".refusal")).to_be_in_viewport(ratio=1)
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


def test_the_focus_is_never_lost_and_never_taken_away(browser: Browser) -> None:
    with running_demo("--word-delay-s", "0.2") as demo:
        page = Visit(browser, demo).page
        prompt, stop = page.get_by_label("Your message"), page.get_by_role("button", name="Stop")
        send, conversation = page.get_by_role("button", name="Send"), page.get_by_role("log")
        page.get_by_role("button", name="Where do erased keys go?").press("Enter")
        expect(stop).to_be_focused()
        stop.press("Enter")
        expect(prompt).to_be_focused()
        prompt.fill(PROMPT)
        send.press("Enter")
        expect(stop).to_be_focused()
        conversation.focus()
        stop.evaluate("(button) => button.click()")
        expect(send).to_be_visible()
        expect(conversation).to_be_focused()
        prompt.fill(PROMPT)
        prompt.press("Enter")
        expect(stop).to_be_visible()
        expect(prompt).to_be_focused()
        page.close()


def show_keys(page: Page, keys: int) -> None:
    """Answer the page as if `keys` pairs had been made, one each minute."""
    lives = [
        {
            "number": number,
            "public_key": f"{number:064x}",
            "made_s_ago": (keys - number) * 60,
            "replaced_s_ago": None if number == keys else (keys - number - 1) * 60,
            "erased_s_ago": None if number >= keys - 1 else (keys - number - 2) * 60,
            "agreements": 0,
            "is_coming": False,
        }
        for number in range(keys, 0, -1)
    ]
    answer = {
        "refresh_time_s": 60,
        "overlap_s": 60,
        "next_event_in_s": 0.1,
        "made": keys,
        "keys": lives,
        "answered_by": 1,
        "processes": [],
    }
    page.route("**/keys", lambda route: route.fulfill(json=answer))


def test_the_keys_that_are_seen_are_listed_newest_first(visit: Visit) -> None:
    keys = visit.page.get_by_role("list", name="Key pairs, newest first")
    for made in (7, 8):
        show_keys(visit.page, made)
        expect(keys.locator(".lane")).to_have_count(made)
        newest_first = [f"{number:064x}" for number in range(made, 0, -1)]
        titles = keys.locator(".lane-label")
        assert titles.evaluate_all("(labels) => labels.map((label) => label.title)") == newest_first
        # Five lanes are visible, the newest among them.
        expect(keys.get_by_role("listitem")).to_have_count(5)
        expect(keys.get_by_role("listitem").first.locator(".lane-label")).to_have_attribute("title", newest_first[0])


def test_a_text_that_stays_as_it_was_is_not_set_again(visit: Visit) -> None:
    show_keys(visit.page, 4)
    expect(visit.page.locator(".lane.erased")).to_have_count(2)
    changed, unchanged = visit.page.evaluate(CHANGES_OF_TEXT, ".timeline")
    assert changed > 0
    assert unchanged == 0
