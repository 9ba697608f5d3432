"""The demo's chat in a real browser: the conversation, and the wire."""

import json
import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Route, expect

from tests.demo.page.visit import CHAT, PROMPT, Visit
from tests.helpers.chromium import needs_chromium
from tests.helpers.demo_process import Demo, running_demo

pytestmark = needs_chromium

# An empty frame: what ends a body in version 1.
END_BYTES = 20
# Words of four letters appear in ciphertext by chance, in one of some thousand runs.
SHORTEST_WORD = 5
PARTS_OF_FRAMES = """
    (rows) => rows.map((row) => [".length", ".ciphertext", ".tag"].map((part) => row.querySelector(part).textContent))
"""

# Shows an exchange whose frame is in the clear, and searches it.
SEARCH_OF_THE_WIRE = """
    async ({ message, answer, frame }) => {
        const { Wire } = await import("/wire.js");
        const exchange = new Wire(document.getElementById("wire")).open("");
        const ciphertext = new TextEncoder().encode(frame + "0".repeat(16));
        exchange.take({ kind: "frame", sent: true, index: 0, ciphertext });
        exchange.search(message, answer);
    }
"""


def words_in(*texts: str) -> set[bytes]:
    words = {word.lower() for text in texts for word in re.findall(r"\w+", text)}
    return {word.encode() for word in words if len(word) >= SHORTEST_WORD}


def travelled(pane: Locator) -> bytes:
    """Return the text of the lines and frames that travelled. The page's own words beside them change with the keys."""
    return "\n".join(pane.locator(".line, .frame").all_inner_texts()).lower().encode()


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
    # One frame for each word, and one each for the role, the end, [DONE] and the end of the body.
    assert len(frames) > len(answer.split())
    rows = visit.page.locator(".frame")
    shown = rows.evaluate_all(PARTS_OF_FRAMES)
    assert len(shown) == len(frames)
    for (length, ciphertext, tag), frame in zip(shown, frames, strict=True):
        assert (length, tag) == (frame[:4].hex(), frame[-16:].hex())
        assert ciphertext
        assert frame[4:-16].hex().startswith(ciphertext) if len(frame) > END_BYTES else ciphertext == "end"
    assert [len(frame) for frame in frames].count(END_BYTES) == 2
    headers = visit.page.locator(".line.header .value").evaluate_all("(all) => all.map((one) => one.title)")
    assert headers == [request.headers["ehbp-encapsulated-key"], response.headers["ehbp-response-nonce"]]
    searched = f"Searched {sum(map(len, frames)):,} bytes of bodies"
    expect(visit.page.locator(".closing")).to_have_text(re.compile(f"{searched} .*: none found.$"))


def test_a_long_header_is_shortened_and_says_by_how_much(visit: Visit) -> None:
    visit.say(PROMPT)
    (request,) = visit.chats
    sent = request.headers["ehbp-encapsulated-key"]
    shown, nonce = visit.page.locator(".line.header .value").all_inner_texts()
    start, more, end = re.split(r"\[(.+) more\]", shown)
    assert sent.startswith(start)
    assert sent.endswith(end)
    assert len(start) + int(more.replace(",", "")) + len(end) == len(sent)
    # The version, the key id and the sealed head stay whole.
    version, key_id, _, sealed_head = sent.split(".")
    assert start.startswith(f"{version}.{key_id}.")
    assert end == f".{sealed_head}"
    response = request.response()
    assert response is not None
    assert nonce == response.headers["ehbp-response-nonce"]


def test_the_page_tells_which_version_it_speaks(visit: Visit) -> None:
    visit.say(PROMPT)
    (request,) = visit.chats
    assert request.headers["ehbp-encapsulated-key"].startswith("1.")
    spoken = visit.page.locator(".spoken")
    expect(spoken).to_have_text("version 1, X-Wing")
    key = visit.page.locator(".sealed-to code").get_attribute("title")
    expect(spoken).to_have_attribute("title", f"sealed to the X-Wing key that the server publishes beside {key}")
    expect(visit.page.locator("#protocol")).to_contain_text("speak version 1 of the wire: HPKE with X-Wing")


def test_with_a_server_that_knows_ehbp_alone_the_page_speaks_that_and_tells_it(visit: Visit) -> None:
    def first_entry(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.body()[:41])

    visit.page.route("**/.well-known/hpke-keys", first_entry)
    visit.reload_without_identity()
    answer = visit.say(PROMPT)
    assert len(answer.split()) > 5
    (request,) = visit.chats
    assert re.fullmatch("[0-9a-f]{64}", request.headers["ehbp-encapsulated-key"])
    expect(visit.page.locator(".spoken")).to_have_text("plain EHBP, X25519")
    expect(visit.page.locator("#protocol")).to_contain_text("speak plain EHBP: HPKE (X25519,")
    expect(visit.page.locator(".verified")).to_have_count(0)
    expect(visit.page.locator(".frame.end")).to_have_count(0)
    expect(visit.page.locator(".closing")).to_contain_text("none found")
    assert visit.complaints == []


def test_a_key_that_the_server_did_not_sign_is_not_taken(visit: Visit) -> None:
    def without_signature(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.body()[:-94])

    visit.page.route("**/.well-known/hpke-keys", without_signature)
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_contain_text("is refused: it is not signed. Nothing was sealed to it")
    assert visit.chats == []


@pytest.mark.parametrize(
    ("message", "answer", "frame", "told"),
    [
        (
            "Hello",
            "None at all.",
            "",
            "Searched 20 bytes of bodies for longer words, 1 of yours and 0 of the answer's: none",
        ),
        ("Is it me?", "Perhaps it is.", "", "for longer words, 0 of yours and 1 of the answer's: none found."),
        ("Is it me?", "It is.", "", "The bodies were not searched: no word of yours or of the answer's is long enough"),
        ("Say hello", "Hello hello", "well, HELLO", "1 of yours and 2 of the answer's: found hello, Hello."),
        ("Привет", "Да", "Привет", "1 of yours and 0 of the answer's: found Привет."),
    ],
)
def test_the_search_of_the_wire_tells_what_it_looked_for_and_found(
    visit: Visit, message: str, answer: str, frame: str, told: str
) -> None:
    visit.page.evaluate(SEARCH_OF_THE_WIRE, {"message": message, "answer": answer, "frame": frame})
    expect(visit.page.locator(".closing")).to_contain_text(told)


@pytest.mark.parametrize("width", [390, 1280])
def test_the_lines_that_tell_stay_in_view_while_frames_scroll(browser: Browser, demo: Demo, width: int) -> None:
    visit = Visit(browser, demo, viewport={"width": width, "height": 844})
    visit.say(PROMPT)
    pane = visit.page.locator("#wire")
    pane.scroll_into_view_if_needed()
    assert pane.evaluate("(pane) => pane.scrollTop") > 200
    for line in ("POST /v1/chat/completions", "Ehbp-Encapsulated-Key", "200", "Ehbp-Response-Nonce", "sealed to"):
        expect(pane.get_by_text(line, exact=line == "200")).to_be_in_viewport(ratio=0.9)
    visit.page.close()


def test_a_person_sees_what_a_proxy_would_have_read(visit: Visit) -> None:
    answer = visit.say(PROMPT)
    words = words_in(PROMPT, answer)
    pane = visit.page.locator("#wire")
    sealed = travelled(pane)
    assert [word for word in words if word in sealed] == []
    visit.page.get_by_label("Show what a proxy would have read").check()
    expect(visit.page.get_by_role("heading", name="What a proxy would have read")).to_be_visible()
    unsealed = travelled(pane)
    assert [word for word in words if word not in unsealed] == []
    expect(pane.get_by_text(PROMPT)).to_be_in_viewport()
    expect(pane.locator(".ciphertext").locator("visible=true")).to_have_count(0)
    visit.page.get_by_label("Show what a proxy would have read").uncheck()
    resealed = travelled(pane)
    assert [word for word in words if word in resealed] == []
    expect(pane.locator(".ciphertext").locator("visible=true")).not_to_have_count(0)


def test_the_shown_plaintext_is_what_the_frames_carried(visit: Visit) -> None:
    answer = visit.say(PROMPT)
    (request,) = visit.chats
    response = request.response()
    assert request.post_data_buffer is not None
    assert response is not None
    frames = frames_of(request.post_data_buffer) + frames_of(response.body())
    texts = visit.page.locator(".plaintext").evaluate_all("(all) => all.map((one) => one.title)")
    # A frame has four bytes of length and sixteen of tag. What ends a body carries nothing.
    carrying = [len(frame) - END_BYTES for frame in frames if len(frame) > END_BYTES]
    assert [len(text.encode()) for text in texts] == carrying
    sent, *received, done = texts
    assert json.loads(sent)["messages"] == [{"role": "user", "content": PROMPT}]
    assert done == "data: [DONE]\n\n"
    deltas = [json.loads(text.removeprefix("data: "))["choices"][0]["delta"] for text in received]
    assert "".join(delta.get("content", "") for delta in deltas) == answer


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
        expect(visit.page.locator(".closing")).to_contain_text("none found")
        expect(visit.page.locator(".chip")).to_have_text("key erased: this recording stays closed")
        assert visit.complaints == []
        visit.page.close()


def test_a_stale_key_is_refused_and_the_message_sent_again_under_the_new_one(visit: Visit, demo: Demo) -> None:
    visit.page.get_by_label(re.compile("Keep using the same key")).check()
    visit.say("Hello")
    first_key = visit.page.locator(".sealed-to code").first.get_attribute("title")
    assert first_key is not None
    demo.wait_for_line(f"{first_key[:8]}… erased")
    answer = visit.say("Hello again")
    statuses = [response.status for request in visit.chats if (response := request.response())]
    assert statuses == [200, 422, 200]
    expect(visit.page.locator(".line.refused")).to_have_count(1)
    keys = [key.get_attribute("title") for key in visit.page.locator(".sealed-to code").all()]
    assert keys[:2] == [first_key, first_key]
    assert keys[2] not in (None, first_key)
    assert len(visit.page.locator(".theirs").all()) == 2
    refusal = visit.page.locator(".refusal")
    expect(refusal).to_have_text(
        f"The server refused key {first_key[:8]}…, which is erased. The message went again, sealed to {keys[2][:8]}…"
    )
    # Without sealing nothing would have been refused.
    expect(visit.page.locator(".attempt").locator("visible=true")).to_have_count(3)
    visit.page.get_by_label("Show what a proxy would have read").check()
    expect(visit.page.locator(".attempt").locator("visible=true")).to_have_count(2)
    # The refusal stays below its answer.
    expect(visit.page.locator(".theirs:has(+ .refusal)")).to_have_text(answer)


def test_an_answer_can_be_stopped_and_the_chat_goes_on(browser: Browser) -> None:
    with running_demo("--word-delay-s", "0.2") as demo:
        visit = Visit(browser, demo)
        visit.page.get_by_role("button", name="Where do erased keys go?").click()
        visit.page.locator(".piece").nth(3).wait_for()
        visit.page.get_by_role("button", name="Stop").click()
        expect(visit.page.locator(".note")).to_have_text("Stopped.")
        expect(visit.page.locator(".closing")).to_have_text("Stopped here: nothing more was read.")
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
def test_an_unsealed_answer_is_not_shown_as_one(visit: Visit, status: int, body: str, shown: str) -> None:
    visit.page.route(f"**{CHAT}", lambda route: route.fulfill(status=status, body=body))
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_contain_text(shown)
    expect(visit.page.locator(".theirs")).to_have_count(0)


@pytest.mark.parametrize("path", [CHAT, "/.well-known/hpke-keys"])
@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_not_followed(visit: Visit, demo: Demo, path: str, status: int) -> None:
    elsewhere = f"{path}?elsewhere"
    headers = {"Location": elsewhere}
    visit.page.route(f"**{path}", lambda route: route.fulfill(status=status, headers=headers))
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_have_text(
        f"{demo.url}{path} was answered with a redirect, which is never followed."
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
    expect(visit.page.locator(".note.bad")).to_contain_text("is not authentic")


@pytest.mark.parametrize(
    ("kept", "cut_frames", "told"),
    [
        (10_000, 1, "The response was cut: it stopped before its end."),
        (10_000, 2, "The response was cut: it stopped before its end."),
        # Plain EHBP does not see the cut; the page misses the chat's own end.
        (41, 1, "The answer was cut off: the stream ended before it was complete."),
    ],
)
def test_a_stream_cut_between_two_frames_is_no_complete_answer(
    visit: Visit, kept: int, cut_frames: int, told: str
) -> None:
    def first_entries(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.body()[:kept])

    def cut(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=b"".join(frames_of(response.body())[:-cut_frames]))

    visit.page.route("**/.well-known/hpke-keys", first_entries)
    visit.reload_without_identity()
    visit.page.route(f"**{CHAT}", cut)
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_have_text(told)


def test_a_status_that_was_changed_is_told(visit: Visit) -> None:
    visit.page.route(f"**{CHAT}", lambda route: route.fulfill(response=route.fetch(), status=201))
    visit.page.get_by_label("Your message").fill("Hello")
    visit.page.keyboard.press("Enter")
    expect(visit.page.locator(".note.bad")).to_contain_text("with status 200, but it arrived with status 201")
    expect(visit.page.locator(".theirs")).to_have_count(0)


def test_a_conversation_of_several_frames_is_shown_as_it_was_sent(visit: Visit) -> None:
    # A long message in place of a long conversation.
    long = " ".join(f"word{number}" for number in range(12_000))
    visit.page.locator("#prompt").evaluate("(prompt) => prompt.removeAttribute('maxlength')")
    visit.say(long)
    texts = visit.page.locator(".frames.sent .plaintext").evaluate_all("(all) => all.map((one) => one.title)")
    assert [len(text) for text in texts[:-1]] == [64 * 1024] * (len(texts) - 1)
    assert len(texts) > 1
    assert json.loads("".join(texts))["messages"] == [{"role": "user", "content": long}]


def test_the_page_says_in_plain_words_that_a_server_fails(browser: Browser) -> None:
    with running_demo("--word-delay-s", "0.2") as demo:
        page = Visit(browser, demo).page
        note, verdict = page.locator(".note.bad").last, page.locator("#proof-verdict")
        page.get_by_role("button", name="Where do erased keys go?").click()
        page.locator(".piece").nth(3).wait_for()
        page.route("**/exchange", lambda route: route.fulfill(status=502, body="<p>Bad gateway"))
        page.get_by_role("button", name="Agree on a secret").click()
        expect(verdict).to_have_text("POST /exchange was answered 502")
        demo.process.kill()
        expect(note).to_have_text("The connection broke while the server was answering.")
        page.get_by_label("Your message").fill(PROMPT)
        page.keyboard.press("Enter")
        expect(note).to_have_text("The server does not answer.")
        page.get_by_role("button", name="Agree on a secret").click()
        expect(verdict).to_have_text("The server does not answer.")
        page.close()


def test_everything_comes_from_the_demo_itself(visit: Visit, demo: Demo) -> None:
    visit.say(PROMPT)
    assert {"{0.scheme}://{0.netloc}".format(urlsplit(request.url)) for request in visit.requests} == {demo.url}
    assert visit.complaints == []
