"""Requests in version 1 of the wire: what is sealed of them, and what their heads say."""

import hashlib
from base64 import urlsafe_b64encode
from typing import Any

import pytest

from server_keys._sealing.wire_v1 import RequestHead
from server_keys.client import SealedTransportError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.frames import plaintexts_of_frames
from tests.helpers.held_time import HeldTime
from tests.helpers.scripted_server import URL
from tests.helpers.scripted_v1_server import V1Server
from tests.helpers.uploads import BODY, FRAME, PIECES, Streamed, inner_that_reads

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)

END_FRAME_BYTES = 20


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT", "PATCH", "PROPFIND"])
def test_a_request_without_a_body_is_sealed(flavour: Flavour, v1_server: V1Server, method: str) -> None:
    with flavour.client(v1_server.inner) as client:
        assert client.request(method, URL).content == b"sealed answer"
    assert v1_server.heads == [RequestHead(method.encode(), b"/v1/chat", has_body=False)]
    sent = v1_server.requests[-1]
    assert sent.content == b""
    # Some servers refuse a POST of no length, and a GET that has one.
    expected = "0" if method in ("POST", "PUT", "PATCH") else None
    assert sent.headers.get("Content-Length") == expected
    assert "Transfer-Encoding" not in sent.headers
    assert sent.headers["Accept-Encoding"] == "identity"


def test_a_generator_of_nothing_is_sealed_as_no_body(flavour: Flavour, v1_server: V1Server) -> None:
    with flavour.client(v1_server.inner) as client:
        response = client.request("POST", URL, content=Streamed([b"", b""]).of(flavour))
    assert response.content == b"sealed answer"
    assert v1_server.heads == [RequestHead(b"POST", b"/v1/chat", has_body=False)]
    assert v1_server.requests[-1].headers["Content-Length"] == "0"


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT"])
def test_a_request_with_a_body_is_sealed_with_its_end(flavour: Flavour, v1_server: V1Server, method: str) -> None:
    with flavour.client(v1_server.inner) as client:
        assert client.request(method, URL, content="hello").content == b"sealed answer"
    assert v1_server.heads == [RequestHead(method.encode(), b"/v1/chat", has_body=True)]
    assert v1_server.opened == [b"hello"]
    sent = v1_server.requests[-1]
    assert int(sent.headers["Content-Length"]) == len(sent.content) == 5 + 20 + END_FRAME_BYTES


def test_a_head_request_is_sealed(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_v1 = lambda opener: v1_server.sealed_v1(opener, has_body=False, headers=[("ETag", '"1"')])
    with flavour.client(v1_server.inner) as client:
        response = client.request("HEAD", URL)
    assert (response.status_code, response.content, response.headers["ETag"]) == (200, b"", '"1"')
    assert v1_server.heads == [RequestHead(b"HEAD", b"/v1/chat", has_body=False)]


def test_options_are_asked_for_unsealed(flavour: Flavour, v1_server: V1Server) -> None:
    with flavour.client(v1_server.inner, require_v1=True) as client:
        assert client.request("OPTIONS", URL).content == b"in plaintext"
    assert v1_server.wires == ["none"]
    assert v1_server.key_requests == []


def test_the_key_itself_is_asked_for_unsealed(flavour: Flavour, v1_server: V1Server) -> None:
    with flavour.client(v1_server.inner, require_v1=True) as client:
        client.request("GET", URL)
        answer = client.request("GET", "https://model.example/.well-known/hpke-keys?fresh=1")
    assert answer.content == v1_server.key_answer()
    assert v1_server.wires == ["v1"]
    assert len(v1_server.key_requests) == 2


def test_headers_of_the_bodys_bytes_are_not_sent(flavour: Flavour, v1_server: V1Server) -> None:
    headers = {"Range": "bytes=0-9", "If-Range": '"1"', "Accept-Encoding": "br", "Ehbp-Encapsulated-Key": "00" * 32}
    with flavour.client(v1_server.inner) as client:
        client.request("GET", URL, headers={**headers, "If-None-Match": '"1"'})
    sent = v1_server.requests[-1].headers
    assert not {"range", "if-range"} & set(sent)
    assert sent.get_list("Accept-Encoding") == ["identity"]
    assert len(sent.get_list("Ehbp-Encapsulated-Key")) == 1
    assert sent["If-None-Match"] == '"1"'


def test_two_requests_have_nothing_in_common(flavour: Flavour, v1_server: V1Server) -> None:
    with flavour.client(v1_server.inner) as client:
        for _ in range(2):
            client.post(URL, "x")
    first, second = v1_server.requests[-2:]
    assert first.content != second.content
    parts = [request.headers["Ehbp-Encapsulated-Key"].split(".") for request in (first, second)]
    assert parts[0][:2] == parts[1][:2]
    assert parts[0][2] != parts[1][2]
    assert parts[0][3] != parts[1][3]


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://model.example", b"/"),
        ("https://model.example/", b"/"),
        ("https://model.example?a=b", b"/?a=b"),
        ("https://model.example/v1?a=b&c=%2F#fragment", b"/v1?a=b&c=%2F"),
        ("https://model.example/v1?", b"/v1"),
        ("https://model.example//v1///chat/", b"/v1/chat/"),
        ("https://model.example/v1/%7Euser/a%2Fb", b"/v1/~user/a/b"),
        ("https://model.example/tëam/v1?name=Zoë", b"/t%C3%ABam/v1?name=Zo%C3%AB"),
        ("https://model.example/t%c3%abam/v1?name=Zo%c3%ab", b"/t%C3%ABam/v1?name=Zo%C3%AB"),
        ("https://model.example/a b?c d", b"/a%20b?c%20d"),
        ("https://user:secret@model.example/v1", b"/v1"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"x"])
def test_the_head_names_the_target_in_its_normal_form(
    flavour: Flavour, v1_server: V1Server, url: str, target: bytes, content: bytes
) -> None:
    with flavour.client(v1_server.inner) as client:
        client.post(url, content)
    assert v1_server.heads == [RequestHead(b"POST", target, has_body=bool(content))]


@pytest.mark.parametrize("target", [b"/other?a=1", "/other?a=1"])
def test_the_head_names_the_target_that_is_sent_in_place_of_the_urls(
    flavour: Flavour, v1_server: V1Server, target: bytes | str
) -> None:
    with flavour.client(v1_server.inner) as client:
        client.post(URL, "x", extensions={"target": target})
    assert v1_server.heads == [RequestHead(b"POST", b"/other?a=1", has_body=True)]


@pytest.mark.parametrize("path_bytes", [4096, 4097, 20_000])
def test_a_long_target_stands_as_its_hash(flavour: Flavour, v1_server: V1Server, path_bytes: int) -> None:
    target = b"/v1?q=" + b"a" * (path_bytes - 6)
    with flavour.client(v1_server.inner) as client:
        client.post(f"https://model.example{target.decode()}", "x")
    digest = urlsafe_b64encode(hashlib.sha256(target).digest()).rstrip(b"=")
    expected = target if path_bytes <= 4096 else b"sha256-" + digest
    assert v1_server.heads == [RequestHead(b"POST", expected, has_body=True)]
    assert len(v1_server.requests[-1].headers["Ehbp-Encapsulated-Key"]) < 7200


@pytest.mark.parametrize(
    ("key_url", "path", "target"),
    [
        ("/team-a/.well-known/hpke-keys", "/team-a/v1/chat?a=b", b"/v1/chat?a=b"),
        ("/team-a/.well-known/hpke-keys?version=1", "/team-a/v1/chat", b"/v1/chat"),
        ("https://model.example/team-a/.well-known/hpke-keys", "/team-a/v1/chat", b"/v1/chat"),
        ("https://keys.example/team-a/.well-known/hpke-keys", "/team-a/v1/chat", b"/v1/chat"),
        ("/tëam/.well-known/hpke-keys", "/t%C3%ABam/v1", b"/v1"),
        ("/t%c3%abam/.well-known/hpke-keys", "/tëam/v1", b"/v1"),
        ("/a/b/.well-known/hpke-keys", "/a/b/", b"/"),
        ("/team-a/.well-known/hpke-keys", "/team-a//v1", b"/v1"),
        # What does not lie below the prefix is meant as it stands.
        ("/team-a/.well-known/hpke-keys", "/team-abc/v1", b"/team-abc/v1"),
        ("/team-a/.well-known/hpke-keys", "/team-a", b"/team-a"),
        ("/team-a/.well-known/hpke-keys", "/v1", b"/v1"),
        # A key with a path of its own tells of no prefix.
        ("/team-a/keys", "/team-a/v1", b"/team-a/v1"),
        ("/keys", "/keys/v1", b"/keys/v1"),
    ],
)
def test_the_head_names_the_path_below_the_prefix_of_the_keys_url(
    flavour: Flavour, v1_server: V1Server, key_url: str, path: str, target: bytes
) -> None:
    v1_server.key_path = flavour.http.URL("https://model.example").join(key_url).path
    with flavour.client(v1_server.inner, key_url=key_url) as client:
        client.post(f"https://model.example{path}", "x")
    assert v1_server.heads == [RequestHead(b"POST", target, has_body=True)]


@pytest.mark.parametrize("length", [1, FRAME - 1, FRAME, FRAME + 1, 3 * FRAME])
@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_end_follows_the_last_frame(flavour: Flavour, v1_server: V1Server, length: int, is_streamed: bool) -> None:
    sent: list[list[bytes]] = []
    body = BODY[:length]
    pieces = [body[start : start + 1000] for start in range(0, length, 1000)]
    with flavour.client(inner_that_reads(flavour, v1_server.handle, sent.append)) as client:
        client.request("POST", URL, content=Streamed(pieces).of(flavour) if is_streamed else body)
    full, rest = divmod(length, FRAME)
    assert plaintexts_of_frames(b"".join(sent[-1])) == [FRAME] * full + [rest] * (rest > 0) + [0]
    assert len(sent[-1][-1]) > END_FRAME_BYTES, "the end leaves with the last frame"
    assert v1_server.opened == [body]
    headers = v1_server.requests[-1].headers
    if is_streamed and length > FRAME:
        assert headers["Transfer-Encoding"] == "chunked"
    else:
        assert int(headers["Content-Length"]) == sum(map(len, sent[-1]))


@pytest.mark.parametrize("headers", [{}, {"Content-Length": str(len(BODY))}], ids=["chunked", "of known length"])
def test_a_body_that_breaks_off_never_ends(flavour: Flavour, v1_server: V1Server, headers: dict[str, str]) -> None:
    sent: list[list[bytes]] = []
    broken = Streamed(PIECES[:200], OSError("the disk is gone"))
    inner = inner_that_reads(flavour, v1_server.handle, sent.append)
    with flavour.client(inner) as client, pytest.raises(OSError, match="the disk is gone"):
        client.request("POST", URL, content=broken.of(flavour), headers=headers)
    broken.assert_let_go(flavour)
    assert {len(frame) for frame in sent[-1]} == {FRAME + 20}
    assert v1_server.opened == []


def test_a_body_of_another_length_than_announced_never_ends(flavour: Flavour, v1_server: V1Server) -> None:
    sent: list[list[bytes]] = []
    headers = {"Content-Length": str(len(BODY) + 1)}
    inner = inner_that_reads(flavour, v1_server.handle, sent.append)
    with flavour.client(inner) as client, pytest.raises(SealedTransportError, match="but its body has only"):
        client.request("POST", URL, content=Streamed(PIECES).of(flavour), headers=headers)
    assert {len(frame) for frame in sent[-1]} == {FRAME + 20}


@pytest.mark.parametrize("content", [b"", b"x", BODY], ids=["none", "short", "long"])
def test_a_rotation_goes_unnoticed(flavour: Flavour, v1_server: V1Server, content: bytes) -> None:
    with flavour.client(v1_server.inner) as client:
        client.post(URL, content)
        v1_server.renew_keys()
        assert client.post(URL, content).content == b"sealed answer"
    assert v1_server.opened == [content] * 2
    assert v1_server.wires == ["v1"] * 3
    assert len(v1_server.key_requests) == 2


def test_what_can_be_read_once_gets_a_fresh_key(flavour: Flavour, v1_server: V1Server) -> None:
    held = HeldTime()
    with flavour.client(v1_server.inner, clock=held.boot) as client:
        client.post(URL, "x")
        held.pass_s(5)
        v1_server.renew_keys()
        response = client.request("POST", URL, content=Streamed(PIECES).of(flavour))
    assert response.content == b"sealed answer"
    assert v1_server.opened == [b"x", BODY]
    assert v1_server.wires == ["v1"] * 2


def test_a_server_that_refuses_every_key_is_not_asked_for_ever(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_v1 = lambda _: v1_server.mismatch()
    for ask in ("GET", "POST"):
        v1_server.requests.clear()
        v1_server.closed.clear()
        with flavour.client(v1_server.inner) as client:
            response = client.request(ask, URL)
        assert (response.status_code, response.json()["title"]) == (422, "stale")
        assert v1_server.wires == ["v1"] * 5
        assert len(v1_server.key_requests) == 3


def test_requests_at_once_fetch_the_key_once(flavour: Flavour, v1_server: V1Server) -> None:
    with flavour.client(v1_server.inner) as client:
        responses: list[Any] = client.post_at_once(URL, ["x", "", "x", ""])
    assert [response.content for response in responses] == [b"sealed answer"] * 4
    assert v1_server.wires == ["v1"] * 4
    assert len(v1_server.key_requests) == 1
