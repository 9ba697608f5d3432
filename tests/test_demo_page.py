"""The demo's page in a real browser: what is read, what travels, and the keys beside it."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, expect

from tests.chromium import chromium, needs_chromium
from tests.demo_process import Demo, running_demo

pytestmark = needs_chromium

CHAT = "/v1/chat/completions"
PROMPT = "Is my secret safe from the proxy?"
ANSWER_MS = 20_000
SHORTEST_WORD = 4
# WCAG 2.2, level AA, for text of normal size.
LEAST_CONTRAST = 4.5
CONTRASTS_OF_TEXT = Path(__file__).with_name("page_contrast.js").read_text()
PARTS_OF_FRAMES = """
    (rows) => rows.map((row) => [".length", ".ciphertext", ".tag"].map((part) => row.querySelector(part).textContent))
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with running_demo("--refresh-time-s", "1.5", "--overlap-s", "1", "--word-delay-s", "0.005") as demo:
        yield demo


class Visit:
    """One visit of the page, with all that the browser sent, fetched and complained of."""

    def __init__(self, browser: Browser, demo: Demo, **options: object) -> None:
        self.page: Page = browser.new_page(**options)  # type: ignore[arg-type]
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        # A function: Playwright sets an attribute on it, which a built-in method does not take.
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        # A refusal that the page recovers from is logged by the browser, too.
        self.page.on(
            "console",
            lambda message: self.complaints.append(message.text) if message.type in ("error", "warning") else None,
        )
        self.page.goto(demo.url)
        self.page.wait_for_selector("html[data-ready]")

    def say(self, text: str) -> str:
        """Send a message and return the answer when it is complete."""
        notes = self.page.locator(".note")
        answered = notes.count()
        self.page.get_by_label("Your message").fill(text)
        self.page.keyboard.press("Enter")
        expect(notes).to_have_count(answered + 1, timeout=ANSWER_MS)
        return self.page.locator(".theirs").last.inner_text()

    @property
    def chats(self) -> list[Request]:
        """The requests for chat completions."""
        return [request for request in self.requests if urlsplit(request.url).path == CHAT]


@pytest.fixture
def visit(browser: Browser, demo: Demo) -> Iterator[Visit]:
    visit = Visit(browser, demo)
    yield visit
    visit.page.close()


def words_in(*texts: str) -> set[bytes]:
    words = {word.lower() for text in texts for word in re.findall(r"\w+", text)}
    return {word.encode() for word in words if len(word) >= SHORTEST_WORD}


def frames_of(body: bytes) -> list[bytes]:
    frames = []
    while body:
        end = 4 + int.from_bytes(body[:4], "big")
        frames.append(body[:end])
        body = body[end:]
    return frames


def test_a_person_chats_and_nothing_of_it_is_on_the_wire_or_in_the_log(visit: Visit, demo: Demo) -> None:
    answer = visit.say(PROMPT)
    assert len(answer.split()) > 5
    (request,) = visit.chats
    sent = request.post_data_buffer
    response = request.response()
    assert sent is not None
    assert response is not None
    received = response.body()
    words = words_in(PROMPT, answer)
    assert len(words) > 5
    carried = (sent + received).lower()
    assert [word for word in words if word in carried] == []
    log = "".join(demo.lines).lower().encode()
    assert [word for word in words_in(PROMPT) if word in log] == []
    assert visit.complaints == []


def test_the_wire_is_shown_as_it_was(visit: Visit) -> None:
    answer = visit.say(PROMPT)
    (request,) = visit.chats
    response = request.response()
    assert request.post_data_buffer is not None
    assert response is not None
    frames = frames_of(request.post_data_buffer) + frames_of(response.body())
    # A frame a word, and those for the role, the end and [DONE].
    assert len(frames) > len(answer.split())
    rows = visit.page.locator(".frame")
    shown = rows.evaluate_all(PARTS_OF_FRAMES)
    assert len(shown) == len(frames)
    for (length, ciphertext, tag), frame in zip(shown, frames, strict=True):
        assert (length, tag) == (frame[:4].hex(), frame[-16:].hex())
        assert ciphertext
        assert frame[4:-16].hex().startswith(ciphertext)
    headers = visit.page.locator(".line.header .value").all_inner_texts()
    assert headers == [request.headers["ehbp-encapsulated-key"], response.headers["ehbp-response-nonce"]]
    searched = visit.page.locator(".searched").inner_text()
    assert f"{sum(map(len, frames)):,} bytes" in searched
    assert "none of them is in it" in searched


def test_pointing_at_a_word_shows_the_frame_that_brought_it(visit: Visit) -> None:
    visit.say(PROMPT)
    word = visit.page.locator(".piece").nth(5)
    word.hover()
    lit = visit.page.locator(".frame.lit")
    expect(lit).to_have_count(1)
    lit.hover()
    expect(word).to_have_class(re.compile("lit"))


def test_an_answer_outlives_the_key_that_it_was_asked_under(browser: Browser) -> None:
    with running_demo("--refresh-time-s", "0.5", "--overlap-s", "0.3") as demo:
        visit = Visit(browser, demo)
        visit.say(PROMPT)
        expect(visit.page.locator(".searched")).to_contain_text("none of them is in it")
        expect(visit.page.locator(".chip")).to_have_text("key erased: this recording stays closed")
        assert visit.complaints == []
        visit.page.close()


def test_a_stale_key_is_refused_and_the_message_sent_again_under_the_new_one(visit: Visit, demo: Demo) -> None:
    visit.page.get_by_label(re.compile("Hold on to my first key")).check()
    visit.say("Hello")
    first_key = visit.page.locator(".sealed-to code").first.get_attribute("title")
    assert first_key is not None
    demo.wait_for_line(f"{first_key[:8]}… erased")
    visit.say("Hello again")
    statuses = [response.status for request in visit.chats if (response := request.response())]
    assert statuses == [200, 422, 200]
    expect(visit.page.locator(".line.refused")).to_have_count(1)
    keys = [key.get_attribute("title") for key in visit.page.locator(".sealed-to code").all()]
    assert keys[:2] == [first_key, first_key]
    assert keys[2] not in (None, first_key)
    assert len(visit.page.locator(".theirs").all()) == 2


def test_an_answer_can_be_stopped_and_the_chat_goes_on(browser: Browser) -> None:
    with running_demo("--word-delay-s", "0.2") as demo:
        visit = Visit(browser, demo)
        visit.page.get_by_role("button", name="Where do erased keys go?").click()
        visit.page.locator(".piece").nth(3).wait_for()
        visit.page.get_by_role("button", name="Stop").click()
        expect(visit.page.locator(".note")).to_have_text("Stopped.")
        visit.page.get_by_label("Your message").fill(PROMPT)
        visit.page.keyboard.press("Enter")
        visit.page.locator(".theirs").nth(1).locator(".piece").nth(3).wait_for()
        visit.page.close()


@pytest.mark.parametrize(
    ("status", "body", "shown"),
    [
        (200, '{"choices": []}', "a success without a seal is never read"),
        (502, "upstream broke", "The answer 502 was not sealed"),
        (422, '{"type": "about:blank"}', "The answer 422 was not sealed"),
    ],
)
def test_what_nobody_sealed_is_not_taken_for_an_answer(visit: Visit, status: int, body: str, shown: str) -> None:
    visit.page.route(f"**{CHAT}", lambda route: route.fulfill(status=status, body=body))
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_contain_text(shown)
    expect(visit.page.locator(".theirs")).to_have_count(0)


@pytest.mark.parametrize("path", [CHAT, "/.well-known/hpke-keys"])
@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_not_followed(visit: Visit, path: str, status: int) -> None:
    elsewhere = f"{path}?elsewhere"
    headers = {"Location": elsewhere}
    visit.page.route(f"**{path}", lambda route: route.fulfill(status=status, headers=headers))
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_have_text(
        f"{path} was answered with a redirect, which is never followed."
    )
    expect(visit.page.locator(".theirs")).to_have_count(0)
    assert not any(request.url.endswith(elsewhere) for request in visit.requests)


def test_a_changed_frame_ends_the_answer(visit: Visit) -> None:
    def change(route: object) -> None:
        response = route.fetch()  # type: ignore[attr-defined]
        body = bytearray(response.body())
        body[-1] ^= 1
        route.fulfill(response=response, body=bytes(body))  # type: ignore[attr-defined]

    visit.page.route(f"**{CHAT}", change)
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_contain_text("is not authentic", timeout=ANSWER_MS)


def test_a_stream_cut_between_two_frames_is_no_complete_answer(visit: Visit) -> None:
    def cut(route: object) -> None:
        response = route.fetch()  # type: ignore[attr-defined]
        body = response.body()
        route.fulfill(response=response, body=body[: -len(frames_of(body)[-1])])  # type: ignore[attr-defined]

    visit.page.route(f"**{CHAT}", cut)
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_contain_text("cut off", timeout=ANSWER_MS)


def test_keys_come_and_go_before_ones_eyes(visit: Visit) -> None:
    current = visit.page.locator(".lane.current code")
    first = current.inner_text()
    expect(visit.page.locator(".lane.overlap code", has_text=first)).to_have_count(1)
    assert current.inner_text() != first
    expect(visit.page.locator(".lane.wiped code", has_text=first)).to_have_count(1)


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


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes can be halted on POSIX only")
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


def test_everything_comes_from_the_demo_itself(visit: Visit, demo: Demo) -> None:
    visit.say(PROMPT)
    assert {"{0.scheme}://{0.netloc}".format(urlsplit(request.url)) for request in visit.requests} == {demo.url}
    assert visit.complaints == []


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
