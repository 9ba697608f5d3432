"""A key that no longer serves is not kept, whatever hides the server's refusal of it."""

from collections.abc import Callable
from typing import Any

import pytest

from server_keys import KeyPair
from server_keys._native import RequestOpener
from server_keys.client import KeyConfigurationError, MalformedMessageError, UnsealedResponseError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.held_time import HeldTime
from tests.helpers.scripted_server import URL, Server

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


class BrokenSendError(Exception):
    """The error of a connection that breaks while a request is sent."""


def broken_send(server: Server) -> Any:
    server.closed.append("no response")
    raise BrokenSendError


UNSEALED: list[tuple[str, Callable[[Server], Any], type[Exception] | None]] = [
    ("a rewritten status", lambda server: server.response(400, [b"{}"], {}), None),
    ("a rewritten body", lambda server: server.response(422, [b"<h1>Bad</h1>"], {}), None),
    ("a login page", lambda server: server.response(200, [b"<h1>Log in</h1>"], {}), UnsealedResponseError),
    ("a redirect", lambda server: server.response(302, [b""], {"Location": "/login"}), UnsealedResponseError),
    ("an overload", lambda server: server.response(503, [b""], {}), None),
    ("a nonce of somebody else", lambda server: server.response(200, [], {"Ehbp-Response-Nonce": ""}), Exception),
    ("a broken connection", broken_send, BrokenSendError),
]


@pytest.mark.parametrize("max_age", ["max-age=300", None])
@pytest.mark.parametrize(("answer", "error"), [case[1:] for case in UNSEALED], ids=[case[0] for case in UNSEALED])
def test_after_anything_but_a_sealed_answer_the_key_is_asked_for_anew(
    flavour: Flavour,
    server: Server,
    max_age: str | None,
    answer: Callable[[Server], Any],
    error: type[Exception] | None,
) -> None:
    time = HeldTime()
    del server.key_headers["Cache-Control"]
    if max_age:
        server.key_headers["Cache-Control"] = max_age
    with flavour.client(server.inner, clock=time.boot) as client:
        client.post(URL, "x")
        time.pass_s(5)
        server.key_pair = KeyPair.generate()
        server.mismatch = lambda: answer(server)  # type: ignore[method-assign]
        if error is None:
            assert client.post(URL, "x").is_error
        else:
            with pytest.raises(error):
                client.post(URL, "x")
        assert client.post(URL, "x").content == b"sealed answer"
    assert [request.headers.get("Cache-Control") for request in server.key_requests] == [None, "no-cache"]


def test_the_last_refusal_is_not_the_keys_end_but_puts_it_in_doubt(flavour: Flavour, server: Server) -> None:
    time = HeldTime()
    server.answer = lambda _: server.mismatch()
    with flavour.client(server.inner, clock=time.boot) as client:
        assert client.post(URL, "x").status_code == 422
        time.pass_s(1)
        server.answer = server.sealed
        client.post(URL, "x")
    assert [request.method for request in server.requests[-2:]] == ["GET", "POST"]
    assert len(server.key_requests) == 4


def test_nobody_makes_the_client_hammer_the_keys_url(flavour: Flavour, server: Server) -> None:
    time = HeldTime()
    server.answer = lambda _: server.response(503, [b"busy"], {})
    with flavour.client(server.inner, clock=time.boot) as client:
        for _ in range(40):
            assert client.post(URL, "x").status_code == 503
            time.pass_s(0.25)
    assert len(server.key_requests) == 10


def test_a_body_that_cannot_be_opened_puts_the_key_in_doubt(flavour: Flavour, server: Server) -> None:
    time = HeldTime()
    server.answer = lambda opener: server.sealed(opener, lambda frame: frame[:-1])
    with flavour.client(server.inner, clock=time.boot) as client:
        for fetches in (1, 2):
            with pytest.raises(MalformedMessageError):
                client.post(URL, "x")
            assert len(server.key_requests) == fetches
            time.pass_s(1)


def test_a_body_that_breaks_off_puts_the_key_in_doubt(flavour: Flavour, server: Server) -> None:
    time = HeldTime()

    def breaking(pieces: Any) -> Any:
        yield from pieces
        raise flavour.http.ReadError("the connection broke")

    def answer(opener: RequestOpener) -> Any:
        sealer = opener.response_sealer()
        pieces = breaking([sealer.seal(b"half an answer")])
        headers = {"Ehbp-Response-Nonce": sealer.response_nonce.hex()}
        return flavour.http.Response(200, headers=headers, stream=flavour.stream(pieces, server.closed))

    server.answer = answer
    with flavour.client(server.inner, clock=time.boot) as client:
        for fetches in (1, 2):
            with pytest.raises(flavour.http.ReadError):
                client.post(URL, "x")
            assert len(server.key_requests) == fetches
            time.pass_s(1)


def test_a_reader_that_leaves_early_does_not_put_the_key_in_doubt(flavour: Flavour, server: Server) -> None:
    time = HeldTime()
    with flavour.client(server.inner, clock=time.boot) as client:
        for _ in range(2):
            pieces = client.pieces(URL, "x")
            next(pieces)
            pieces.close()
            time.pass_s(1)
    assert len(server.key_requests) == 1


def test_without_a_word_on_its_lifetime_a_key_lives_for_an_hour(flavour: Flavour, server: Server) -> None:
    time = HeldTime()
    del server.key_headers["Cache-Control"]
    with flavour.client(server.inner, clock=time.boot) as client:
        for passed_s, fetches in ((0, 1), (3200, 1), (400, 2)):
            time.pass_s(passed_s)
            client.post(URL, "x")
            assert len(server.key_requests) == fetches


def test_a_renewal_that_fails_holds_nobody_up(flavour: Flavour, server: Server) -> None:
    time = HeldTime()
    with flavour.client(server.inner, clock=time.boot) as client:
        client.post(URL, "x")
        time.pass_s(55)
        server.answer_key = lambda: server.response(503, [b"busy"], {})
        assert client.post(URL, "x").content == b"sealed answer"
        assert server.key_requests[-1].extensions["timeout"]["read"] <= 2
        time.pass_s(2)

        def fail() -> Any:
            server.closed.append("no response")
            raise flavour.http.ConnectTimeout("nobody is there")

        server.answer_key = fail
        assert client.post(URL, "x").content == b"sealed answer"
        server.answer_key = server.published
        time.pass_s(2)
        assert client.post(URL, "x").content == b"sealed answer"
    assert len(server.key_requests) == 4


@pytest.mark.parametrize(
    ("status", "headers"),
    [(404, {}), (302, {"Location": "/elsewhere"}), (200, {"Content-Type": "text/html"}), (200, None)],
    ids=["not found", "redirected", "a page", "no key"],
)
def test_a_renewal_that_brings_no_key_is_no_error_while_the_known_one_serves(
    flavour: Flavour, server: Server, status: int, headers: dict[str, str] | None
) -> None:
    time = HeldTime()
    with flavour.client(server.inner, clock=time.boot) as client:
        client.post(URL, "x")
        time.pass_s(55)
        answer_headers = server.key_headers if headers is None else headers
        server.answer_key = lambda: server.response(status, [b"nothing"], answer_headers)
        assert client.post(URL, "x").content == b"sealed answer"
        assert len(server.key_requests) == 2
        time.pass_s(6)
        with pytest.raises(KeyConfigurationError):
            client.post(URL, "x")
