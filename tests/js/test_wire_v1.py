"""Version 1 of the wire in the browser's client: known answers, what it refuses, and what it agrees on with Python."""

import base64
import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from server_keys._sealing.key_entries import PublishedKeys, XWingKey, key_answer, keys_of, with_length
from server_keys._sealing.place import target
from server_keys._sealing.protocol import key_config
from server_keys._sealing.wire_v1 import RequestHeader, parsed_request_header, parsed_response_header, sealed_target
from tests.js.engines import Engine

VECTORS = Path(__file__).parents[1] / "vectors"
RUN = Path(__file__).with_name("wire_v1.js").read_text().partition("\n")[2]

MESSAGES = [
    message
    for file in ("wire_v1.json", "wire_v1_go.json")
    for message in json.loads((VECTORS / file).read_text())["messages"]
]
DRAFTS = json.loads((VECTORS / "xwing.json").read_text())["vectors"]
SMALL_ORDER = [point["public_key"] for point in json.loads((VECTORS / "small_order_points.json").read_text())["points"]]
ML_KEM_KEY = DRAFTS[0]["pk"][: 1184 * 2]
KEY_PATH = "/.well-known/hpke-keys"
HOST = "https://my-server"

TARGETS = [
    ("/v1/models", KEY_PATH, "/v1/models"),
    ("", KEY_PATH, "/"),
    ("/?", KEY_PATH, "/"),
    ("/a?b", KEY_PATH, "/a?b"),
    ("/a#b", KEY_PATH, "/a"),
    ("/a//b///c//", KEY_PATH, "/a/b/c/"),
    ("/a/../b/./c", KEY_PATH, "/b/c"),
    ("/a/%2e%2E/b/..%2fc/%2E", KEY_PATH, "/b/../c/"),
    ("/team-a/v1/..%2Fx", f"/x/..%2Fteam-a{KEY_PATH}", "/v1/../x"),
    ("/%7Ea%2Fb%20c%2f%2fd", KEY_PATH, "/~a/b%20c/d"),
    ("/a%25%3F%23%5B%5D%7C%5E%22%60%7B%7D%5C", KEY_PATH, "/a%25%3F%23%5B%5D%7C%5E%22%60%7B%7D%5C"),
    ("/a%zz%2", KEY_PATH, "/a%25zz%252"),
    ("/!$&'()*+,;=:@-._~", KEY_PATH, "/!$&'()*+,;=:@-._~"),
    ("/grüße/%E2%82%AC/\U0001f511", KEY_PATH, "/gr%C3%BC%C3%9Fe/%E2%82%AC/%F0%9F%94%91"),
    ("/%EF%BB%BFa", KEY_PATH, "/%EF%BB%BFa"),
    ("/a?b=%7e%2f%26&c=%C3%bc&d=//../x", KEY_PATH, "/a?b=~%2F%26&c=%C3%BC&d=//../x"),
    ("/a?b=%zz%2", KEY_PATH, "/a?b=%zz%2"),
    ("/a??b?", KEY_PATH, "/a??b?"),
    ("/team-a/v1/models?limit=3", f"/team-a{KEY_PATH}", "/v1/models?limit=3"),
    ("/team-a", f"/team-a{KEY_PATH}", "/team-a"),
    ("/team-a/", f"/team-a{KEY_PATH}", "/"),
    ("/team-b/v1", f"/team-a{KEY_PATH}", "/team-b/v1"),
    ("/team-ab/v1", f"/team-a{KEY_PATH}", "/team-ab/v1"),
    ("/%74eam-a//v1", f"//team%2Da{KEY_PATH}", "/v1"),
    ("/team-a/v1", "/keys", "/team-a/v1"),
]


def random_paths(count: int) -> list[str]:
    draw = random.Random(16)
    parts = [
        "/",
        "//",
        ".",
        "..",
        "%2e",
        "%2F",
        "%2f",
        "a",
        "b;c",
        "%7e",
        "%c3%bc",
        "%C3",
        "%ff",
        "%E2%82",
        "%",
        "%4",
        "+",
    ]
    parts += ["?", "&", "=", "%3f", "%26", "~", "@", "%00", "%20", "%EF%BF%BD", "%F0%9F%94%91", "[", "|"]
    return ["/" + "".join(draw.choices(parts, k=draw.randrange(1, 12))) for _ in range(count)]


def sealed_by_python(path: str, query: str) -> str:
    """What this package's own client seals for a path and query that it sends."""
    return sealed_target(target(path.encode(), query.encode())).decode()


LONG = [f"/{'a' * (length - 1)}" for length in (4096, 4097)]
RANDOM_PATHS = random_paths(3_000)

X25519 = bytes(range(32))
XWING = XWingKey(7, bytes.fromhex(DRAFTS[0]["pk"]))
PLAIN = key_answer(PublishedKeys(X25519, None))
BOTH = key_answer(PublishedKeys(X25519, XWING))
ENTRY = BOTH[41:]
UNKNOWN = with_length(b"\x01\x99\x99something")
BOTH_SHOWN: list[Any] = [X25519.hex(), [7, XWING.public_key.hex()]]
PLAIN_SHOWN: list[Any] = [X25519.hex(), None]
CUT = "KeyConfigurationError: a key answer whose last entry is cut off"
ANSWERS: dict[str, tuple[bytes, Any]] = {
    "plain": (PLAIN, PLAIN_SHOWN),
    "both": (BOTH, BOTH_SHOWN),
    "an unknown entry before": (PLAIN + UNKNOWN + ENTRY, BOTH_SHOWN),
    "unknown entries after": (BOTH + UNKNOWN * 3, BOTH_SHOWN),
    "an entry of one byte": (PLAIN + b"\0\1\0" + ENTRY, BOTH_SHOWN),
    "key id 0": (PLAIN + ENTRY.replace(b"\x07\x64\x7a", b"\0\x64\x7a", 1), PLAIN_SHOWN),
    "another suite": (PLAIN + ENTRY[:-1] + b"\3", PLAIN_SHOWN),
    "a shorter key": (PLAIN + with_length(ENTRY[2:-7] + ENTRY[-6:]), PLAIN_SHOWN),
    "a longer entry": (PLAIN + with_length(ENTRY[2:] + b"\0"), PLAIN_SHOWN),
    "two keys": (BOTH + ENTRY, "KeyConfigurationError: 2 X-Wing keys: a key answer has one at most"),
    "an empty entry": (BOTH + b"\0\0", CUT),
    "half a length": (BOTH + b"\0", CUT),
    "a length alone": (BOTH + b"\0\1", CUT),
    "a cut entry": (BOTH[:-1], CUT),
    "16 KiB": (BOTH + with_length(bytes(16 * 1024 - len(BOTH) - 2)), BOTH_SHOWN),
    "more": (
        BOTH + with_length(bytes(16 * 1024 - len(BOTH) - 1)),
        "KeyConfigurationError: a key answer of 16385 bytes: 16384 are the limit",
    ),
}
NO_CONFIGURATION = "KeyConfigurationError: not a key configuration of X25519, HKDF-SHA256 and AES-256-GCM"
CONFIGURATION = key_config(X25519)
FOREIGN = {
    "another AEAD": CONFIGURATION[:-1] + b"\1",
    "another KEM": CONFIGURATION.replace(b"\0\x20", b"\0\x10", 1),
    "another key id": b"\1" + CONFIGURATION[1:],
    "a cut one": CONFIGURATION[:-1],
    "nothing": b"",
    "the list form": with_length(CONFIGURATION),
}

NONCE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
HEADERS: list[tuple[str, Any]] = [
    (f"1.{NONCE}.AAEC", [bytes(range(32)).hex(), "000102"]),
    (f"1.{NONCE}.", [bytes(range(32)).hex(), ""]),
    (f"2.{NONCE}.AAEC", "version 1"),
    (f"{NONCE}.AAEC", "version 1"),
    (f"1.{NONCE}", "two more fields"),
    (f"1.{NONCE}.AAEC.AAEC", "two more fields"),
    (f"1.{NONCE}.AAEC, 1.{NONCE}.AAEC", "two more fields"),
    (f"1.{NONCE[:-3]}.AAEC", "must have 32 bytes"),
    (f"1.{NONCE[:-1]}9.AAEC", "not canonical base64url"),
    (f"1.{NONCE}=.AAEC", "not base64url"),
    (f"1.{NONCE}.AAE=", "not base64url"),
    (f"1.{NONCE}.AA+/", "not base64url"),
    (bytes(range(32)).hex(), "two more fields"),
    ("", "version 1"),
]
HEADS: dict[str, dict[str, str | None]] = {
    "a body": {"method": "POST", "target": "/v1/chat/completions", "body": "hello"},
    "no body": {"method": "GET", "target": "/v1/models", "body": None},
    "an empty body": {"method": "POST", "target": "/v1/models", "body": ""},
    "a long body": {"method": "PUT", "target": "/v1/files/1", "body": "x" * 150_000},
}


def changed_at_random(original: str, alphabet: str, count: int) -> list[str]:
    """Copies with characters that were replaced, dropped or added, and with a part that was cut off or doubled."""
    draw, made = random.Random(7), []
    for _ in range(count):
        text = original
        for _ in range(draw.randrange(1, 3)):
            at, length = draw.randrange(len(text)), draw.choice([0, 1, 2, 2, 4, 40])
            text = text[:at] + draw.choice(["", "", *alphabet, text[at : at + 8] * 2]) + text[at + length :]
        made.append(text)
    return made


def read_by_python(parse: Callable[[], Any]) -> Any:
    try:
        return parse()
    except ValueError:
        return "refused"


def answer_read_by_python(answer: str) -> Any:
    keys = read_by_python(lambda: keys_of(bytes.fromhex(answer)))
    if keys == "refused":
        return keys
    return [keys.x25519.hex(), keys.xwing and [keys.xwing.key_id, keys.xwing.public_key.hex()]]


def header_read_by_python(value: str) -> Any:
    header = read_by_python(lambda: parsed_response_header(value))
    return header if header == "refused" else [header.nonce.hex(), header.sealed_head.hex()]


def answers_at_random(count: int) -> list[bytes]:
    """Key answers of entries in any order, in some of which a byte is another one, or the end is missing."""
    draw, made = random.Random(8), []
    entries = [UNKNOWN, b"\0\1\0", with_length(bytes(300)), ENTRY, ENTRY]
    for _ in range(count):
        answer = bytearray(PLAIN + b"".join(draw.choices(entries, k=draw.randrange(4))))
        if draw.random() < 0.6:
            # Most bytes of an answer are a key's, and say nothing.
            places = [*range(5), *range(33, min(len(answer), 50)), *range(max(len(answer) - 20, 0), len(answer))]
            answer[draw.choice(places)] = draw.choice([0, 1, 2, 0x64, 0x7A, 0xFF])
        made.append(bytes(answer[: len(answer) - draw.choice([0, 0, 0, 0, 1, 2, 6])]))
    return made


CHANGED_ANSWERS = [answer.hex() for answer in answers_at_random(1_000)]
CHANGED_HEADERS = changed_at_random(f"1.{NONCE}.AAECAwQFBgcICQoLDA0ODxAREhM", "AQgw_-=.+/1 ", 4_000)


@pytest.fixture(scope="module")
def results(engine: Engine) -> dict[str, Any]:
    """What the modules make of all that stands above."""
    targets = [(HOST + path, HOST + key_path) for path, key_path, _ in TARGETS]
    targets += [(HOST + path, HOST + KEY_PATH) for path in LONG]
    results: dict[str, Any] = engine.run(
        RUN,
        noble=engine.noble,
        messages=MESSAGES,
        drafts=DRAFTS,
        heads=HEADS,
        headers=[value for value, _ in HEADERS] + CHANGED_HEADERS,
        targets=targets,
        paths=[HOST + path for path in RANDOM_PATHS],
        answers={
            "given": [answer.hex() for answer, _ in ANSWERS.values()]
            + [answer.hex() for answer in FOREIGN.values()]
            + CHANGED_ANSWERS,
            "unusable": [ML_KEM_KEY + point for point in SMALL_ORDER] + ["ff" * 1216],
        },
    )
    return results


def test_requests_are_sealed_as_others_computed_them(results: dict[str, Any]) -> None:
    assert len(MESSAGES) > 4
    for sealed, message in zip(results["sealed"], MESSAGES, strict=True):
        assert sealed == {"head": message["sealed_head"], "body": message["body"], "exported": message["exported"]}


def test_responses_that_others_sealed_are_opened(results: dict[str, Any]) -> None:
    for opened, message in zip(results["opened"], MESSAGES, strict=True):
        if message["response_head"].endswith(b" end".hex()):
            # Their bodies are an end frame, which HTTP has no place for here.
            assert opened == "Error: the response goes on after its end"
        else:
            assert opened == [[number, piece] for number, piece in enumerate(message["response_pieces"], start=1)]
    assert results["bytewise"] == results["opened"][0]


def test_each_cut_of_a_response_is_told(results: dict[str, Any]) -> None:
    assert len(results["cuts"]) == len(MESSAGES[0]["response_body"]) // 2
    ends = {0, 29, 29 + 21, len(results["cuts"]) - 20}
    for length, told in enumerate(results["cuts"]):
        words = (
            "The response was cut: it stopped before its end."
            if length in ends
            else "the response ended inside a frame"
        )
        assert (length, told) == (length, f"MissingEndError: {words}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("a byte after the end", "Error: the response goes on after its end"),
        ("two ends", "Error: the response goes on after its end"),
        ("a frame after the end", "Error: the response goes on after its end"),
        ("an end in the middle", "Error: frame 2 of the response is not authentic"),
        ("no frame but the end", "Error: frame 1 of the response is not authentic"),
        ("an empty length", "Error: a frame announces 0 bytes; it has 16 at least"),
        ("a length below a tag's", "Error: a frame announces 15 bytes; it has 16 at least"),
        ("a length above the limit", "Error: a frame announces 16777217 bytes"),
        ("another bit", "Error: frame 1 of the response is not authentic"),
    ],
)
def test_what_no_server_sends_is_an_error(results: dict[str, Any], change: str, told: str) -> None:
    assert results["changed"][change].startswith(told)


def test_the_sealed_head_decides_on_status_and_body(results: dict[str, Any]) -> None:
    statuses = results["statuses"]
    assert statuses["another"].startswith(
        "StatusMismatchError: The server sealed a response with status 200, but it arr"
    )
    assert statuses["swapped"] == "TypeError: its head is not authentic"
    assert statuses["a body after a head without one"] == "Error: the response goes on after its end"
    assert statuses["no body after a head without one"] == []
    assert statuses["no stream after a head without one"] == []
    assert statuses["no stream after a head with one"].startswith("MissingEndError: ")


def test_xwing_is_that_of_the_draft(engine: Engine, results: dict[str, Any]) -> None:
    assert results["draft"] == [vector["ss"] for vector in DRAFTS]
    assert results["kem"] == ("X-Wing" if engine.has_xwing else None)
    assert results["own"] == ([[1120, True]] * len(DRAFTS) if engine.has_xwing else None)


def test_keys_of_small_order_and_broken_ones_are_refused(engine: Engine, results: dict[str, Any]) -> None:
    told = "KeyConfigurationError: The server's X-Wing key cannot be used: nothing was sealed to it."
    assert len(SMALL_ORDER) > 5
    assert results["refused"] == ([told] * (len(SMALL_ORDER) + 1) if engine.has_xwing else None)


@pytest.mark.parametrize(
    ("name", "plaintexts"),
    [("a body", [5, 0]), ("no body", []), ("an empty body", []), ("a long body", [65_536, 65_536, 18_928, 0])],
)
def test_a_request_is_a_header_and_frames(results: dict[str, Any], name: str, plaintexts: list[int]) -> None:
    head, made = HEADS[name], results["request"][name]
    header: RequestHeader = parsed_request_header(made["header"])
    assert (header.key_id, header.encapsulated_key.hex()) == (7, MESSAGES[0]["encapsulated_key"])
    end = "" if plaintexts else " end"
    assert len(header.sealed_head) == len(f"{head['method']} {head['target']}{end}") + 16
    assert made["plaintexts"] == plaintexts


@pytest.mark.parametrize(("number", "found"), [(number, found) for number, (_, found) in enumerate(HEADERS)])
def test_a_response_header_has_one_form(results: dict[str, Any], number: int, found: Any) -> None:
    made = results["headers"][number]
    assert made == found if isinstance(found, list) else found in made


def test_a_response_head_is_a_status(results: dict[str, Any]) -> None:
    whole, without, *others = results["responseHeads"]
    assert whole == {"status": 200, "hasBody": True}
    assert without == {"status": 204, "hasBody": False}
    assert others == ["TypeError: its head must be a status"] * 8


def test_base64url_has_one_form(results: dict[str, Any]) -> None:
    shown = ["", "00", "!", "0001", "!", "!", "000000", "!", "!", "!", "!", "fbff", "!", "!"]
    assert ["!" if "base64url" in text else text for text in results["base64url"]] == shown


@pytest.mark.parametrize(("number", "found"), [(number, found) for number, (_, _, found) in enumerate(TARGETS)])
def test_a_target_is_normalised(results: dict[str, Any], number: int, found: str) -> None:
    assert results["targets"][number] == found


def test_a_long_target_stands_as_its_hash(results: dict[str, Any]) -> None:
    whole, hashed = results["targets"][len(TARGETS) :]
    assert whole == LONG[0]
    digest = base64.urlsafe_b64encode(hashlib.sha256(LONG[1].encode()).digest()).decode()
    assert hashed == f"sha256-{digest.rstrip('=')}"


def test_python_and_the_browser_agree_on_targets(results: dict[str, Any]) -> None:
    sent = results["sent"]
    assert len(set(map(tuple, sent))) > 2_000
    # A URL without what engines take away from it, as both ends see it on the wire.
    differing = [one for one in sent if one[2] != sealed_by_python(one[0], one[1])]
    assert differing == []


@pytest.mark.parametrize("name", ANSWERS)
def test_a_key_answer_is_read_as_python_reads_it(results: dict[str, Any], name: str) -> None:
    assert results["answers"][list(ANSWERS).index(name)] == ANSWERS[name][1]


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_no_key_configuration_is_refused(results: dict[str, Any], name: str) -> None:
    assert results["answers"][len(ANSWERS) + list(FOREIGN).index(name)].startswith(NO_CONFIGURATION)


def test_python_and_the_browser_agree_on_changed_answers(results: dict[str, Any]) -> None:
    found = results["answers"][len(ANSWERS) + len(FOREIGN) :]
    shown = ["refused" if isinstance(one, str) else one for one in found]
    expected = [answer_read_by_python(answer) for answer in CHANGED_ANSWERS]
    assert 100 < expected.count("refused") < len(expected) - 100
    assert [index for index, one in enumerate(expected) if one != shown[index]] == []


def test_python_and_the_browser_agree_on_changed_headers(results: dict[str, Any]) -> None:
    found = results["headers"][len(HEADERS) :]
    shown = ["refused" if isinstance(one, str) else one for one in found]
    expected = [header_read_by_python(value) for value in CHANGED_HEADERS]
    assert 1_000 < expected.count("refused") < len(expected) - 100
    differing = [
        (CHANGED_HEADERS[index], one, shown[index]) for index, one in enumerate(expected) if one != shown[index]
    ]
    assert differing == []
