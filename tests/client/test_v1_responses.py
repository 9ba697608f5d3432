"""Responses in version 1 of the wire: only what the server sealed, whole, with its status, is taken for an answer."""

from collections.abc import Callable
from typing import Any

import pytest

from server_keys._native import RequestOpenerV1
from server_keys.client import (
    FrameTooLargeError,
    MalformedMessageError,
    MissingEndError,
    SealedTransportError,
    StatusMismatchError,
    UnsealedResponseError,
)
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.held_time import HeldTime
from tests.helpers.scripted_server import URL
from tests.helpers.scripted_v1_server import V1Server, nonce_header

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


def answering(server: V1Server, **answer: Any) -> Callable[[RequestOpenerV1], Any]:
    return lambda opener: server.sealed_v1(opener, **answer)


def test_every_cut_of_a_body_raises(flavour: Flavour, v1_server: V1Server) -> None:
    whole: list[bytes] = []

    def cut(frames: list[bytes]) -> list[bytes]:
        whole[:] = [b"".join(frames)]
        return [whole[0][:kept]]

    v1_server.answer_v1 = answering(v1_server, change=cut)
    kept = 0
    with flavour.client(v1_server.inner) as client:
        while kept == 0 or kept < len(whole[0]):
            with pytest.raises(MissingEndError):
                client.post(URL, "x")
            kept += 1
        assert client.post(URL, "x").content == b"sealed answer"
    assert kept == len(b"sealed answer") + 60


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_what_arrives_before_a_cut_is_handed_over_and_then_it_raises(
    flavour: Flavour, v1_server: V1Server, kept: int
) -> None:
    v1_server.answer_v1 = answering(v1_server, change=lambda frames: frames[:kept])
    with flavour.client(v1_server.inner) as client:
        pieces = client.pieces(URL, "x")
        assert [next(pieces) for _ in range(kept)] == [b"sealed ", b"answer"][:kept]
        with pytest.raises(MissingEndError):
            next(pieces)


@pytest.mark.parametrize("split", [1, 3, 7])
def test_a_body_may_arrive_in_any_pieces(flavour: Flavour, v1_server: V1Server, split: int) -> None:
    def into_pieces(frames: list[bytes]) -> list[bytes]:
        body = b"".join(frames)
        return [body[start : start + split] for start in range(0, len(body), split)]

    v1_server.answer_v1 = answering(v1_server, change=into_pieces)
    with flavour.client(v1_server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"


@pytest.mark.parametrize(
    ("change", "error"),
    [
        pytest.param(lambda f: [*f, f[-1]], MalformedMessageError, id="the end twice"),
        pytest.param(lambda f: [f[-1], *f[:-1]], MalformedMessageError, id="the end first"),
        pytest.param(lambda f: [f[0], f[2], f[1]], MalformedMessageError, id="the end in the middle"),
        pytest.param(lambda f: [*f, f[0]], MalformedMessageError, id="a frame after the end"),
        pytest.param(lambda f: [*f, b"\0"], MalformedMessageError, id="a byte after the end"),
        pytest.param(lambda f: [*f, bytes(4)], MalformedMessageError, id="an empty frame of plain EHBP after the end"),
        pytest.param(lambda f: [bytes(4), *f], MalformedMessageError, id="an empty frame of plain EHBP"),
        pytest.param(lambda f: [f[1], f[0], f[2]], MalformedMessageError, id="frames in another order"),
        pytest.param(lambda f: [f[0], f[0], *f[1:]], MalformedMessageError, id="a frame twice"),
        pytest.param(lambda f: f[1:], MalformedMessageError, id="without the first frame"),
        pytest.param(lambda f: [f[0], f[2]], MalformedMessageError, id="without a frame in the middle"),
        pytest.param(lambda f: [f[0][:-1] + bytes([f[0][-1] ^ 1]), *f[1:]], MalformedMessageError, id="a changed bit"),
        pytest.param(lambda f: [(15).to_bytes(4, "big"), *f], MalformedMessageError, id="a frame without its tag"),
        pytest.param(lambda f: [*f[:2], (100_001).to_bytes(4, "big")], FrameTooLargeError, id="above the limit"),
    ],
)
def test_a_changed_body_raises(
    flavour: Flavour, v1_server: V1Server, change: Callable[[list[bytes]], list[bytes]], error: type[Exception]
) -> None:
    v1_server.answer_v1 = answering(v1_server, change=change)
    with flavour.client(v1_server.inner, max_frame_bytes=100_000) as client, pytest.raises(error):
        client.post(URL, "x")


def test_the_end_of_another_response_is_no_end(flavour: Flavour, v1_server: V1Server) -> None:
    ends: list[bytes] = []

    def with_an_earlier_end(frames: list[bytes]) -> list[bytes]:
        ends.append(frames[-1])
        return [*frames[:-1], ends[0]]

    v1_server.answer_v1 = answering(v1_server, change=with_an_earlier_end)
    with flavour.client(v1_server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"
        with pytest.raises(MalformedMessageError):
            client.post(URL, "x")


def test_an_empty_body_has_an_end(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_v1 = answering(v1_server, pieces=())
    with flavour.client(v1_server.inner) as client:
        assert client.post(URL, "x").content == b""
        v1_server.answer_v1 = answering(v1_server, pieces=(), change=lambda _: [])
        with pytest.raises(MissingEndError):
            client.post(URL, "x")


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("HEAD", 404), ("GET", 304), ("POST", 204)])
def test_where_no_body_can_follow_the_head_is_the_end(
    flavour: Flavour, v1_server: V1Server, method: str, status: int
) -> None:
    with flavour.client(v1_server.inner) as client:
        v1_server.answer_v1 = answering(v1_server, status=status, has_body=False)
        response = client.request(method, URL)
        assert (response.status_code, response.content) == (status, b"")
        # A head that promises a body lets nobody take the missing one for an empty one.
        v1_server.answer_v1 = answering(v1_server, status=status, has_body=False, says=b"%d" % status)
        with pytest.raises(MissingEndError):
            client.request(method, URL)


@pytest.mark.parametrize("body", [b"\0", b"x" * 50, None])
def test_a_body_where_the_head_says_there_is_none_raises(
    flavour: Flavour, v1_server: V1Server, body: bytes | None
) -> None:
    def answer(opener: RequestOpenerV1) -> Any:
        sealer = opener.response_sealer()
        nonce = nonce_header(sealer, b"200 end")
        return v1_server.response(200, [sealer.seal_end() if body is None else body], {"Ehbp-Response-Nonce": nonce})

    v1_server.answer_v1 = answer
    with flavour.client(v1_server.inner) as client, pytest.raises(MalformedMessageError):
        client.post(URL, "x")


@pytest.mark.parametrize("status", [200, 201, 400, 404, 409, 422, 500, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_sealed_status_is_the_callers(flavour: Flavour, v1_server: V1Server, method: str, status: int) -> None:
    v1_server.answer_v1 = answering(v1_server, status=status)
    with flavour.client(v1_server.inner) as client:
        response = client.request(method, URL)
    assert (response.status_code, response.content) == (status, b"sealed answer")
    assert v1_server.wires == ["v1"]


@pytest.mark.parametrize(
    ("sealed", "arrives"), [(500, 200), (403, 200), (200, 503), (200, 204), (201, 200), (200, 422)]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_status_than_the_sealed_one_is_refused(
    flavour: Flavour, v1_server: V1Server, method: str, sealed: int, arrives: int
) -> None:
    v1_server.answer_v1 = answering(v1_server, status=arrives, says=b"%d" % sealed)
    with (
        flavour.client(v1_server.inner) as client,
        pytest.raises(StatusMismatchError, match=f"status {sealed}, but it arrived with status {arrives}") as caught,
    ):
        client.request(method, URL)
    assert isinstance(caught.value, SealedTransportError)
    assert v1_server.wires == ["v1"]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda _: "", id="empty"),
        pytest.param(lambda _: "ab" * 32, id="of plain EHBP"),
        pytest.param(lambda nonce: "2" + nonce[1:], id="version 2"),
        pytest.param(lambda nonce: nonce.rpartition(".")[0], id="without its head"),
        pytest.param(lambda nonce: nonce.rpartition(".")[0] + ".", id="with an empty head"),
        pytest.param(lambda nonce: nonce + ".", id="one field more"),
        pytest.param(lambda nonce: nonce + "=", id="padded"),
        pytest.param(lambda nonce: nonce[:-4], id="with a cut head"),
        pytest.param(lambda nonce: f"1..{nonce.split('.')[2]}", id="without its nonce"),
        pytest.param(lambda nonce: f"1.{nonce.split('.')[1][:-2]}.{nonce.split('.')[2]}", id="with a cut nonce"),
        pytest.param(lambda nonce: f"1.{'A' * 43}.{nonce.split('.')[2]}", id="with another nonce"),
        pytest.param(lambda nonce: nonce[:-6] + nonce[-6:].swapcase(), id="with a changed head"),
        pytest.param(lambda nonce: nonce.replace(".", " ."), id="with spaces"),
        pytest.param(lambda nonce: "é" + nonce, id="no ASCII"),
        pytest.param(lambda nonce: nonce + "A" * 65_536, id="of 64 KiB"),
        pytest.param(lambda nonce: f"{nonce}, {nonce}", id="joined to another"),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
def test_a_nonce_that_the_server_did_not_make_is_refused(
    flavour: Flavour, v1_server: V1Server, change: Callable[[str], str], status: int
) -> None:
    def answer(opener: RequestOpenerV1) -> Any:
        sealer = opener.response_sealer()
        nonce = change(nonce_header(sealer, b"%d" % status))
        headers = [(b"Ehbp-Response-Nonce", nonce.encode("latin-1"))]
        return v1_server.response(status, [sealer.seal(b"answer"), sealer.seal_end()], headers)

    v1_server.answer_v1 = answer
    with flavour.client(v1_server.inner) as client, pytest.raises(UnsealedResponseError, match="Nonce cannot be used"):
        client.post(URL, "x")


def test_two_nonces_are_refused(flavour: Flavour, v1_server: V1Server) -> None:
    def answer(opener: RequestOpenerV1) -> Any:
        nonces = [nonce_header(opener.response_sealer(), b"200 end") for _ in range(2)]
        return v1_server.response(200, [], [("Ehbp-Response-Nonce", nonce) for nonce in nonces])

    v1_server.answer_v1 = answer
    with flavour.client(v1_server.inner) as client, pytest.raises(UnsealedResponseError, match="there 2 times"):
        client.post(URL, "x")


def test_the_answer_to_another_request_is_refused(flavour: Flavour, v1_server: V1Server) -> None:
    openers: list[RequestOpenerV1] = []

    def answer(opener: RequestOpenerV1) -> Any:
        openers.append(opener)
        return v1_server.sealed_v1(openers[0])

    v1_server.answer_v1 = answer
    with flavour.client(v1_server.inner) as client:
        assert client.post(URL, "x").content == b"sealed answer"
        with pytest.raises(UnsealedResponseError, match="cannot be used"):
            client.post(URL, "x")


def test_the_head_of_another_answer_to_the_same_request_is_refused(flavour: Flavour, v1_server: V1Server) -> None:
    def answer(opener: RequestOpenerV1) -> Any:
        one, other = (nonce_header(opener.response_sealer(), b"200 end").split(".") for _ in range(2))
        return v1_server.response(200, [], {"Ehbp-Response-Nonce": f"1.{one[1]}.{other[2]}"})

    v1_server.answer_v1 = answer
    with flavour.client(v1_server.inner) as client, pytest.raises(UnsealedResponseError, match="cannot be used"):
        client.post(URL, "x")


@pytest.mark.parametrize(
    "says", [b"", b" end", b"20", b"2000", b"+200", b"200  end", b"200 END", b"200 end end", b"\xff"]
)
def test_a_head_of_another_form_is_refused(flavour: Flavour, v1_server: V1Server, says: bytes) -> None:
    v1_server.answer_v1 = answering(v1_server, says=says)
    with flavour.client(v1_server.inner) as client, pytest.raises(UnsealedResponseError, match="cannot be used"):
        client.post(URL, "x")


@pytest.mark.parametrize("status", [200, 201, 204, 206, 300, 304, 305])
@pytest.mark.parametrize(("method", "content"), [("GET", b""), ("HEAD", b""), ("POST", b""), ("POST", b"x")])
def test_a_success_that_nobody_sealed_is_refused(
    flavour: Flavour, v1_server: V1Server, status: int, method: str, content: bytes
) -> None:
    v1_server.answer_v1 = lambda _: v1_server.response(status, [], {})
    match = f"{method} {URL} was sealed, but answered with status {status}"
    with flavour.client(v1_server.inner) as client, pytest.raises(UnsealedResponseError, match=match):
        client.request(method, URL, content=content)


@pytest.mark.parametrize("status", [401, 403, 404, 413, 429, 431, 500, 502, 503])
@pytest.mark.parametrize("content", [b"", b"x"])
def test_an_error_that_nobody_sealed_passes_through(
    flavour: Flavour, v1_server: V1Server, status: int, content: bytes
) -> None:
    v1_server.answer_v1 = lambda _: v1_server.response(status, [b"from a proxy"], {})
    with flavour.client(v1_server.inner) as client:
        response = client.post(URL, content)
    assert (response.status_code, response.content) == (status, b"from a proxy")
    assert v1_server.wires == ["v1"]


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_a_request_without_a_body_passes(
    flavour: Flavour, v1_server: V1Server, status: int, is_sealed: bool
) -> None:
    def answer(opener: RequestOpenerV1) -> Any:
        head = v1_server.heads[-1]
        assert head is not None
        if head.target == b"/there":
            return v1_server.sealed_v1(opener)
        if is_sealed:
            return v1_server.sealed_v1(opener, status=status, pieces=(), headers=[("Location", "/there")])
        return v1_server.response(status, [], {"Location": "/there"})

    v1_server.answer_v1 = answer
    with flavour.client(v1_server.inner, require_v1=True) as client:
        assert client.request("GET", URL).status_code == status
        assert client.request("GET", URL, follow_redirects=True).content == b"sealed answer"
    assert v1_server.wires == ["v1"] * 3


@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_of_a_body_is_refused(flavour: Flavour, v1_server: V1Server, status: int, is_sealed: bool) -> None:
    location = [("Location", "https://elsewhere.example/")]
    v1_server.answer_v1 = lambda opener: (
        v1_server.sealed_v1(opener, status=status, headers=location)
        if is_sealed
        else v1_server.response(status, [], location)
    )
    with flavour.client(v1_server.inner) as client, pytest.raises(UnsealedResponseError, match=f"by a {status}"):
        client.post(URL, "x", follow_redirects=True)
    assert v1_server.wires == ["v1"]


@pytest.mark.parametrize("failure", ["a cut", "a wrong status", "no seal"])
def test_after_anything_but_a_sealed_answer_the_key_is_asked_for_anew(
    flavour: Flavour, v1_server: V1Server, failure: str
) -> None:
    time = HeldTime()
    failures: dict[str, tuple[Callable[[RequestOpenerV1], Any], type[Exception]]] = {
        "a cut": (answering(v1_server, change=lambda frames: frames[:-1]), MissingEndError),
        "a wrong status": (answering(v1_server, says=b"500"), StatusMismatchError),
        "no seal": (lambda _: v1_server.response(200, [], {}), UnsealedResponseError),
    }
    with flavour.client(v1_server.inner, clock=time.boot) as client:
        client.request("GET", URL)
        time.pass_s(5)
        v1_server.answer_v1, error = failures[failure]
        with pytest.raises(error):
            client.request("GET", URL)
        v1_server.answer_v1 = v1_server.sealed_v1
        assert client.request("GET", URL).content == b"sealed answer"
    assert [request.headers.get("Cache-Control") for request in v1_server.key_requests] == [None, "no-cache"]


def test_a_cut_names_what_has_probably_replaced_the_body(flavour: Flavour, v1_server: V1Server) -> None:
    v1_server.answer_v1 = answering(v1_server, change=lambda _: [b"<html>"])
    with (
        flavour.client(v1_server.inner) as client,
        pytest.raises(FrameTooLargeError, match="text '<htm', so something"),
    ):
        client.post(URL, "x")
