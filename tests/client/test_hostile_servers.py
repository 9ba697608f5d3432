"""The sealing transports against servers and proxies that misbehave, each scripted message by message."""

import asyncio
import gzip
import logging
import tracemalloc
from collections.abc import Callable
from typing import Any

import httpx
import httpx2
import pytest

from server_keys import KeyPair
from server_keys._sealing.protocol import key_config
from server_keys.client import (
    FrameTooLargeError,
    KeyConfigurationError,
    KeyRejectedError,
    MalformedMessageError,
    SealedTransportError,
    UnsealedResponseError,
)
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.scripted_server import MISMATCH, URL, Server

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


def test_a_key_is_kept_for_its_max_age(flavour: Flavour, server: Server) -> None:
    times = [0.0]
    server.key_headers["Age"] = "10"
    with flavour.client(server.inner, clock=lambda: times[-1]) as client:
        for time, fetches in ((0.0, 1), (44.9, 1), (50.1, 2), (94.0, 2)):
            times.append(time)
            assert client.post(URL, "x").content == b"sealed answer"
            assert len(server.key_requests) == fetches


@pytest.mark.parametrize(("cache_control", "fetches"), [("no-store", 3), ("max-age=0", 3), (None, 1), ("private", 1)])
def test_a_key_without_max_age_is_kept_until_it_is_refused(
    flavour: Flavour, server: Server, cache_control: str | None, fetches: int
) -> None:
    del server.key_headers["Cache-Control"]
    if cache_control:
        server.key_headers["Cache-Control"] = cache_control
    with flavour.client(server.inner) as client:
        for _ in range(3):
            client.post(URL, "x")
    assert len(server.key_requests) == fetches


def test_the_key_is_asked_for_without_the_callers_credentials(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        client.post(f"{URL}?user=me", "x", headers={"Authorization": "Bearer secret", "Cookie": "session=secret"})
    (request,) = server.key_requests
    assert str(request.url) == "https://model.example/.well-known/hpke-keys"
    assert "secret" not in str(request.headers.raw)
    sealed = server.requests[-1]
    assert sealed.headers["Authorization"] == "Bearer secret"
    assert sealed.url.query == b"user=me"
    assert int(sealed.headers["Content-Length"]) == len(sealed.content) == 1 + 20


@pytest.mark.parametrize("media_type", ["application/problem+json", "application/json", "text/html"])
def test_a_refused_key_is_fetched_anew_and_the_request_sent_again_once(
    flavour: Flavour, server: Server, media_type: str
) -> None:
    server.mismatch_headers = {"Content-Type": media_type}
    with flavour.client(server.inner) as client:
        client.post(URL, "x")
        server.key_pair = KeyPair.generate()
        assert client.post(URL, "x").content == b"sealed answer"
        assert [request.headers.get("Cache-Control") for request in server.key_requests] == [None, "no-cache"]


def test_a_compressed_refusal_is_understood(flavour: Flavour, server: Server) -> None:
    server.mismatch_headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    server.mismatch_body = gzip.compress(MISMATCH)
    with flavour.client(server.inner) as client:
        client.post(URL, "x")
        server.key_pair = KeyPair.generate()
        assert client.post(URL, "x").content == b"sealed answer"


def test_a_server_that_refuses_every_key_is_not_asked_for_ever(flavour: Flavour, server: Server) -> None:
    server.answer = lambda _: server.mismatch()
    with flavour.client(server.inner) as client:
        response = client.post(URL, "x")
    assert (response.status_code, response.json()["title"]) == (422, "stale")
    assert [request.method for request in server.requests] == ["GET", "POST"] * 3 + ["POST"] * 2


@pytest.mark.parametrize("body", [b'{"detail": "bad input"}', b"[]", b"not JSON", b"[" * 60_000])
def test_another_422_passes_through(flavour: Flavour, server: Server, body: bytes) -> None:
    server.answer = lambda _: server.response(422, [body], {})
    with flavour.client(server.inner) as client:
        response = client.post(URL, "x")
    assert (response.status_code, response.content) == (422, body)
    assert len(server.requests) == 2


def test_a_422_that_is_too_long_to_be_a_refusal_of_the_key_is_not_read_to_its_end(
    flavour: Flavour, server: Server
) -> None:
    server.answer = lambda _: server.response(422, [b"x" * 50_000] * 1000, {})
    with flavour.client(server.inner) as client, pytest.raises(UnsealedResponseError, match="422 and more than 65536"):
        client.post(URL, "x")


@pytest.mark.parametrize(("times", "coding"), [(1, "gzip"), (2, "gzip, gzip")])
def test_a_422_that_is_a_bomb_does_not_go_off(flavour: Flavour, server: Server, times: int, coding: str) -> None:
    bomb = bytes(50_000_000)
    for _ in range(times):
        bomb = gzip.compress(bomb)
    server.answer = lambda _: server.response(422, [bomb], {"Content-Encoding": coding})
    with flavour.client(server.inner) as client:
        tracemalloc.start()
        pieces = client.pieces(URL, "x")
        assert next(pieces) == bomb
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        pieces.close()
    assert peak < 1_000_000


@pytest.mark.parametrize("status", [304, 401, 429, 500, 503])
def test_an_error_that_nobody_sealed_passes_through(flavour: Flavour, server: Server, status: int) -> None:
    server.answer = lambda _: server.response(status, [b"from a proxy"], {})
    with flavour.client(server.inner) as client:
        response = client.post(URL, "x")
    assert (response.status_code, response.content) == (status, b"from a proxy")


@pytest.mark.parametrize("nonce", [{}, {"Ehbp-Response-Nonce": "00" * 32}])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_refused(flavour: Flavour, server: Server, status: int, nonce: dict[str, str]) -> None:
    headers = {"Location": "https://elsewhere.example/", **nonce}
    server.answer = lambda _: server.response(status, [b""], headers)
    with flavour.client(server.inner) as client, pytest.raises(UnsealedResponseError, match=f"by a {status}"):
        client.post(URL, "x", follow_redirects=True)


@pytest.mark.parametrize("status", [200, 201, 204])
def test_a_success_that_nobody_sealed_is_refused(flavour: Flavour, server: Server, status: int) -> None:
    server.answer = lambda _: server.response(status, [b"from somebody else"], {})
    with flavour.client(server.inner) as client, pytest.raises(UnsealedResponseError, match=rf"{URL}.*status {status}"):
        client.post(URL, "x")


@pytest.mark.parametrize(
    "headers",
    [[("Ehbp-Response-Nonce", "ab" * 32)] * 2, [("Ehbp-Response-Nonce", "ab")], [("Ehbp-Response-Nonce", "")]],
)
def test_a_nonce_that_cannot_be_used_is_refused(flavour: Flavour, server: Server, headers: Any) -> None:
    server.answer = lambda _: server.response(500, [b""], headers)
    what = "there 2 times" if len(headers) == 2 else "64 hex digits"
    with flavour.client(server.inner) as client, pytest.raises(UnsealedResponseError, match=f"Nonce .*{what}"):
        client.post(URL, "x")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(lambda frame: frame[:-1], MalformedMessageError, id="cut inside a frame"),
        pytest.param(lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]), MalformedMessageError, id="a changed bit"),
        pytest.param(lambda _: (100_001).to_bytes(4, "big"), FrameTooLargeError, id="a frame above the limit"),
    ],
)
def test_a_response_with_a_bad_end_raises_when_it_is_reached(
    flavour: Flavour, server: Server, change: Callable[[bytes], bytes], error: type[Exception]
) -> None:
    server.answer = lambda opener: server.sealed(opener, change)
    with flavour.client(server.inner, max_frame_bytes=100_000) as client:
        pieces = client.pieces(URL, "x")
        assert next(pieces) == b"sealed "
        with pytest.raises(error):
            next(pieces)


def test_a_reader_that_leaves_early_closes_the_response(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        pieces = client.pieces(URL, "x")
        next(pieces)
        pieces.close()


@pytest.mark.parametrize(
    ("status", "headers", "body", "reason"),
    [
        (404, {}, b"", "status 404 instead of the server's key: does it speak EHBP?"),
        (401, {}, b"", "status 401 instead of the server's key: it must be open to everybody"),
        (301, {"Location": "https://elsewhere.example"}, b"", "redirects to 'https://elsewhere.example', which is not"),
        (
            304,
            {"Location": "https://elsewhere.example"},
            b"",
            "status 304 instead of the server's key: does it speak EHBP?",
        ),
        (200, {"Content-Type": "text/html"}, b"<html>", "'text/html' instead of 'application/ohttp-keys'"),
        (200, {"Content-Type": "application/ohttp-keys"}, b"short", "5 bytes"),
        (200, {"Content-Type": "application/ohttp-keys"}, bytes(41), "not a key configuration of X25519"),
        (200, {"Content-Type": "application/ohttp-keys"}, key_config(bytes(32)), "of small order"),
        (200, {"Content-Type": "application/ohttp-keys"}, bytes(100_000), "more than 65536 bytes"),
    ],
)
def test_a_key_that_cannot_be_had_is_an_error_that_names_its_url(
    flavour: Flavour, status: int, headers: Any, body: bytes, reason: str
) -> None:
    def handle(request: Any) -> Any:
        assert request.method == "GET", "something was sealed"
        return flavour.http.Response(status, headers=headers, content=body)

    with (
        flavour.client(flavour.scripted(handle)) as client,
        pytest.raises(KeyConfigurationError, match=rf"https://model\.example/\.well-known/hpke-keys.*{reason}"),
    ):
        client.post(URL, "x")


def test_a_key_that_the_user_refuses_is_never_used(flavour: Flavour, server: Server) -> None:
    pinned = server.key_pair.public_key

    def verify_key(public_key: bytes) -> bool:
        return public_key == pinned

    with flavour.client(server.inner, verify_key=verify_key) as client:
        assert client.post(URL, "x").content == b"sealed answer"
        server.key_pair = KeyPair.generate()
        with pytest.raises(KeyRejectedError, match=server.key_pair.public_key.hex()):
            client.post(URL, "x")
    assert [request.method for request in server.requests] == ["GET", "POST", "POST", "GET"]


@pytest.mark.parametrize("verdict", [0, "", "yes", 1.0])
def test_a_verdict_that_is_neither_yes_nor_none_refuses(flavour: Flavour, server: Server, verdict: object) -> None:
    with flavour.client(server.inner, verify_key=lambda _: verdict) as client, pytest.raises(KeyRejectedError):
        client.post(URL, "x")


def test_what_the_user_raises_reaches_the_caller(flavour: Flavour, server: Server) -> None:
    class NotAttestedError(Exception):
        pass

    def verify_key(public_key: bytes) -> None:
        raise NotAttestedError

    async def verify_key_later(public_key: bytes) -> None:
        raise NotAttestedError

    for verify in (verify_key, verify_key_later) if flavour.is_async else (verify_key,):
        with flavour.client(server.inner, verify_key=verify) as client, pytest.raises(NotAttestedError):
            client.post(URL, "x")


def test_a_coroutine_function_cannot_verify_for_a_sync_transport(flavour: Flavour, server: Server) -> None:
    async def verify_key(public_key: bytes) -> bool:
        return False

    error = KeyRejectedError if flavour.is_async else TypeError
    with flavour.client(server.inner, verify_key=verify_key) as client, pytest.raises(error, match="verify_key"):
        client.post(URL, "x")
    assert [request.method for request in server.requests] == ["GET"]


def test_what_is_no_function_cannot_verify(flavour: Flavour, server: Server) -> None:
    with pytest.raises(TypeError, match="verify_key must be a function"), flavour.client(server.inner, verify_key=b"k"):
        pass


def test_a_websocket_is_refused_before_anything_is_sent(flavour: Flavour, server: Server) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    with flavour.client(server.inner) as client, pytest.raises(SealedTransportError, match="'websocket'"):
        client.request("GET", URL, headers=headers)
    assert server.requests == []


def test_a_request_of_the_other_library_is_told_its_transport(flavour: Flavour, server: Server) -> None:
    other = httpx if flavour.http is httpx2 else httpx2
    request, transport = other.Request("POST", URL, content=b"x"), flavour.transport(server.inner)
    with pytest.raises(TypeError, match=f"takes requests of {flavour.http.__name__}, not .*client.{other.__name__}"):
        asyncio.run(transport.handle_async_request(request)) if flavour.is_async else transport.handle_request(request)
    assert server.requests == []


def test_the_inner_transport_is_entered_and_left_with_the_client(flavour: Flavour) -> None:
    life = []

    class Inner(flavour.http.MockTransport):  # type: ignore[misc, name-defined]
        def __enter__(self) -> None:
            life.append("entered")

        def __exit__(self, *_: object) -> None:
            life.append("left")

        async def __aenter__(self) -> None:
            life.append("entered")

        async def __aexit__(self, *_: object) -> None:
            life.append("left")

    async def enter_and_leave() -> None:
        async with flavour.http.AsyncClient(transport=transport):
            life.append("inside")

    transport = flavour.transport(Inner(lambda _: None))
    if flavour.is_async:
        asyncio.run(enter_and_leave())
    else:
        with flavour.http.Client(transport=transport):
            life.append("inside")
    assert life == ["entered", "inside", "left"]


def test_each_origin_has_a_key_of_its_own(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        for url in (URL, "https://model.example:8443/v1", "http://model.example/v1", URL):
            client.post(url, "x")
    assert len(server.key_requests) == 3


def test_each_name_of_a_server_has_a_key_of_its_own(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        for host in ("a.example", "b.example", "a.example"):
            client.post(URL, "x", headers={"Host": host})
    assert [request.headers["Host"] for request in server.key_requests] == ["a.example", "b.example"]


def test_an_error_shows_no_secret_of_the_url(flavour: Flavour, server: Server) -> None:
    server.answer = lambda _: server.response(200, [b""], {})
    with flavour.client(server.inner) as client, pytest.raises(UnsealedResponseError) as error:
        client.post("https://user:secret@model.example/v1?api-key=secret", "x")
    assert "secret" not in str(error.value)


def test_nothing_of_it_is_logged(flavour: Flavour, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with flavour.client(server.inner) as client:
        client.post(URL, "a secret prompt")
    assert "secret" not in caplog.text
