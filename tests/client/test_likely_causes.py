"""Bodies that cannot be opened: the error names what has probably happened to them on their way."""

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from server_keys._native import RequestOpener
from server_keys.client import FrameTooLargeError, MalformedMessageError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.scripted_server import URL, Server

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


def sealed_then(server: Server, change: Callable[[bytes], list[bytes]], headers: dict[str, str]) -> Any:
    def answer(opener: RequestOpener) -> Any:
        sealer = opener.response_sealer()
        nonce = {"Ehbp-Response-Nonce": sealer.response_nonce.hex()}
        return server.response(200, change(sealer.seal(b"answer")), {**nonce, **headers})

    return answer


@pytest.mark.parametrize(
    ("change", "headers", "error", "cause"),
    [
        (
            lambda body: [gzip.compress(body)],
            {"Content-Encoding": "gzip"},
            FrameTooLargeError,
            r"gzip does.*: gzip\)",
        ),
        (lambda body: [bytes([byte]) for byte in gzip.compress(body)], {}, FrameTooLargeError, "begins as gzip does"),
        (lambda _: [b"<html>"], {}, FrameTooLargeError, "begins with the text '<htm', so something .* has replaced it"),
        (lambda body: [body[:-1]], {"Content-Encoding": "br"}, MalformedMessageError, "Content-Encoding: br, so"),
        (lambda _: [bytes([0, 2, 0, 0])], {}, FrameTooLargeError, "max_frame_bytes of the transport sets the limit"),
    ],
)
def test_the_likely_cause(
    flavour: Flavour,
    server: Server,
    change: Callable[[bytes], list[bytes]],
    headers: dict[str, str],
    error: type[Exception],
    cause: str,
) -> None:
    server.answer = sealed_then(server, change, headers)
    with flavour.client(server.inner, max_frame_bytes=100_000) as client, pytest.raises(error, match=cause):
        client.post(URL, "x")


def test_a_body_that_is_cut_off_has_no_cause_to_be_named(flavour: Flavour, server: Server) -> None:
    server.answer = sealed_then(server, lambda body: [body[:-1]], {})
    with flavour.client(server.inner) as client, pytest.raises(MalformedMessageError) as caught:
        client.post(URL, "x")
    assert ":" not in str(caught.value)


def test_an_app_that_compresses_by_itself_is_understood(flavour: Flavour, server: Server) -> None:
    def answer(opener: RequestOpener) -> Any:
        sealer = opener.response_sealer()
        headers = {"Ehbp-Response-Nonce": sealer.response_nonce.hex(), "Content-Encoding": "gzip"}
        return server.response(200, [sealer.seal(gzip.compress(b"compressed, then sealed"))], headers)

    server.answer = answer
    with flavour.client(server.inner) as client:
        assert client.post(URL, "x").content == b"compressed, then sealed"


def test_headers_of_the_plaintexts_bytes_are_not_sent_with_sealed_ones(flavour: Flavour, server: Server) -> None:
    digests = {"Content-MD5": "a", "Content-Digest": "b", "Repr-Digest": "c", "Digest": "d", "Range": "bytes=0-1"}
    content = {"Content-Type": "text/plain", "Content-Encoding": "gzip", "Content-Language": "en"}
    with flavour.client(server.inner) as client:
        client.post(URL, gzip.compress(b"x"), headers={**digests, **content})
    sent = server.requests[-1]
    assert not [name for name in digests if name in sent.headers]
    assert {name: sent.headers[name] for name in content} == content
    assert int(sent.headers["Content-Length"]) == len(sent.content)


def test_headers_of_the_sealed_bytes_are_not_taken_for_the_plaintexts(flavour: Flavour, server: Server) -> None:
    described = {"Content-Length": "26", "Content-Digest": "sha-256=:YWJj:", "Content-MD5": "YWJj", "ETag": '"1"'}
    server.answer = sealed_then(server, lambda body: [body], described)
    with flavour.client(server.inner) as client:
        response = client.post(URL, "x")
    assert response.content == b"answer"
    assert [name for name in described if name in response.headers] == ["ETag"]


def test_a_callers_own_headers_of_the_protocol_are_replaced_and_the_others_stay(
    flavour: Flavour, server: Server
) -> None:
    own = [
        ("Ehbp-Encapsulated-Key", "00" * 32),
        ("EHBP-ENCAPSULATED-KEY", "11" * 32),
        ("accept-encoding", "br"),
        ("X-Tag", "first"),
        ("X-Tag", "second"),
    ]
    with flavour.client(server.inner) as client:
        assert client.post(URL, "x", headers=own).content == b"sealed answer"
    headers = server.requests[-1].headers
    assert len(headers.get_list("Ehbp-Encapsulated-Key")) == 1
    assert headers.get_list("Accept-Encoding") == ["identity"]
    assert headers.get_list("X-Tag") == ["first", "second"]


def test_headers_of_an_answer_may_be_no_ascii(flavour: Flavour, server: Server) -> None:
    def answer(opener: RequestOpener) -> Any:
        sealed = server.sealed(opener)
        sealed.headers = flavour.http.Headers([*sealed.headers.raw, (b"X-Name", "Zoë".encode())])
        return sealed

    server.answer = answer
    with flavour.client(server.inner) as client:
        response = client.post(URL, "x")
    assert (response.content, response.headers["X-Name"]) == (b"sealed answer", "Zoë")
