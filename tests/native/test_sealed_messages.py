"""A piece of a streamed body, sealed as the message of ASGI in which the app sends it."""

from collections.abc import Callable
from typing import Any

import pytest

from server_keys import KeyErasedError, KeyPair
from server_keys._native import (
    RequestOpener,
    RequestOpenerV1,
    RequestSealer,
    RequestSealerV1,
    ResponseOpener,
    ResponseOpenerV1,
    ResponseSealer,
    ResponseSealerV1,
    XWingKeyPair,
)

MOST_BYTES = 64 * 1024


class Ends:
    """The two ends of a response, ready for its body."""

    def __init__(self, sealer: ResponseSealer | ResponseSealerV1, opener: ResponseOpener | ResponseOpenerV1) -> None:
        self.sealer = sealer
        self.opener = opener


def ehbp() -> Ends:
    pair = KeyPair.generate()
    client = RequestSealer(pair.public_key)
    server = RequestOpener(client.encapsulated_key, [pair])
    server.feed(client.seal(b"question"))
    sealer = server.response_sealer()
    return Ends(sealer, client.response_opener(sealer.response_nonce))


def v1() -> Ends:
    pair = XWingKeyPair.generate()
    client = RequestSealerV1(pair.public_key)
    server = RequestOpenerV1(client.encapsulated_key, client.seal_head(b"head"), pair)
    sealer = server.response_sealer()
    head = sealer.seal_head(b"200")
    return Ends(sealer, client.response_opener(sealer.response_nonce, head))


@pytest.fixture(params=[ehbp, v1])
def ends(request: pytest.FixtureRequest) -> Ends:
    made: Callable[[], Ends] = request.param
    return made()


def piece_of(body: object, **more: object) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": True, **more}


def test_a_piece_leaves_in_a_copy_of_its_message(ends: Ends) -> None:
    message = piece_of(b"token", **{"app.own": 7})
    sealed = ends.sealer.seal_message(message)
    assert sealed is not None
    assert sealed is not message
    assert ends.opener.feed(sealed.pop("body")) == b"token"
    assert sealed == {"type": "http.response.body", "more_body": True, "app.own": 7}
    assert message == piece_of(b"token", **{"app.own": 7})


@pytest.mark.parametrize("buffer", [bytearray(b"token"), memoryview(b"token"), memoryview(b"xtokenx")[1:-1]])
def test_any_buffer_is_sealed_as_bytes(ends: Ends, buffer: bytearray | memoryview) -> None:
    sealed = ends.sealer.seal_message(piece_of(buffer))
    assert sealed is not None
    assert ends.opener.feed(sealed["body"]) == b"token"


def test_the_longest_piece_is_one_frame(ends: Ends) -> None:
    sealed = ends.sealer.seal_message(piece_of(bytes(MOST_BYTES)))
    assert sealed is not None
    assert len(sealed["body"]) == MOST_BYTES + 20
    assert ends.opener.feed(sealed["body"]) == bytes(MOST_BYTES)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.start", "status": 200, "headers": [], "body": b"x", "more_body": True},
        {"type": "http.response.trailers", "body": b"x", "more_body": True},
        {"type": b"http.response.body", "body": b"x", "more_body": True},
        {"body": b"x", "more_body": True},
        {"type": "http.response.body", "body": b"last", "more_body": False},
        {"type": "http.response.body", "body": b"last"},
        {"type": "http.response.body", "more_body": True},
        piece_of(bytes(MOST_BYTES + 1)),
        piece_of(memoryview(bytes(MOST_BYTES + 8)).cast("Q")),
        {},
        [("type", "http.response.body")],
        None,
    ],
)
def test_anything_else_is_left_to_the_caller_and_takes_no_number(ends: Ends, message: object) -> None:
    assert ends.sealer.seal_message(message) is None
    assert ends.sealer.streamed == (0, 0)
    assert ends.opener.feed(ends.sealer.seal(b"first")) == b"first"


def test_what_is_no_buffer_is_an_error_and_takes_no_number(ends: Ends) -> None:
    with pytest.raises(TypeError):
        ends.sealer.seal_message(piece_of("text"))
    assert ends.opener.feed(ends.sealer.seal(b"first")) == b"first"


def test_the_errors_of_a_message_are_the_callers(ends: Ends) -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ends.sealer.seal_message(piece_of(b"token") | {"more_body": Undecided()})


def test_frames_and_their_bytes_are_counted_and_an_empty_piece_has_none(ends: Ends) -> None:
    for body in (b"one", b"", b"three"):
        ends.sealer.seal_message(piece_of(body))
    ends.sealer.seal(b"not by a message")
    assert ends.sealer.streamed == (2, 3 + 20 + 5 + 20)
    ends.sealer.erase()
    assert ends.sealer.streamed == (2, 3 + 20 + 5 + 20)


def test_an_erased_sealer_seals_no_message(ends: Ends) -> None:
    ends.sealer.erase()
    with pytest.raises(KeyErasedError):
        ends.sealer.seal_message(piece_of(b"token"))
    assert ends.sealer.streamed == (0, 0)


def test_in_version_1_no_message_comes_before_the_head() -> None:
    pair = XWingKeyPair.generate()
    client = RequestSealerV1(pair.public_key)
    sealer = RequestOpenerV1(client.encapsulated_key, client.seal_head(b"head"), pair).response_sealer()
    with pytest.raises(RuntimeError):
        sealer.seal_message(piece_of(b"token"))
