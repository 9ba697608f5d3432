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
from tests.helpers.frames import plaintexts_of_frames

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


@pytest.mark.parametrize(
    ("length", "max_frame_bytes", "frames"),
    [
        (0, 116, []),
        (1, 116, [1]),
        (100, 116, [100]),
        (101, 116, [100, 1]),
        (350, 116, [100, 100, 100, 50]),
        (3, 17, [1, 1, 1]),
        (3, 16, [1, 1, 1]),
        (3, 0, [1, 1, 1]),
        (16 * 1024 * 1024, 2**40, [16 * 1024 * 1024 - 16, 16]),
    ],
)
def test_a_piece_is_sealed_in_frames_of_the_length_that_is_asked_for(
    ends: Ends, length: int, max_frame_bytes: int, frames: list[int]
) -> None:
    text = (b"0123456789" * (length // 10 + 1))[:length]
    sealed = ends.sealer.seal(text, max_frame_bytes=max_frame_bytes)
    assert plaintexts_of_frames(sealed) == frames
    assert ends.opener.feed(sealed) == text


@pytest.mark.parametrize(("length", "frames"), [(0, [0]), (1, [1, 0]), (200, [100, 100, 0]), (201, [100, 100, 1, 0])])
def test_the_last_piece_of_version_1_is_sealed_with_the_end_of_the_body(length: int, frames: list[int]) -> None:
    ends = v1()
    assert isinstance(ends.sealer, ResponseSealerV1)
    assert isinstance(ends.opener, ResponseOpenerV1)
    first = ends.sealer.seal(b"first ")
    last = ends.sealer.seal_last(bytearray(length), max_frame_bytes=116)
    assert plaintexts_of_frames(last) == frames
    assert ends.opener.feed(first) == b"first "
    assert not ends.opener.ended
    assert ends.opener.feed(last) == bytes(length)
    assert ends.opener.ended
    ends.opener.finish()
    for seal_more in (ends.sealer.seal, ends.sealer.seal_last):
        with pytest.raises(RuntimeError):
            seal_more(b"more")
    with pytest.raises(RuntimeError):
        ends.sealer.seal_end()


def test_a_request_of_version_1_ends_with_its_last_piece() -> None:
    pair = XWingKeyPair.generate()
    client = RequestSealerV1(pair.public_key)
    with pytest.raises(RuntimeError):
        client.seal_last(b"before the head")
    server = RequestOpenerV1(client.encapsulated_key, client.seal_head(b"head"), pair)
    assert server.feed(client.seal_last(b"question", max_frame_bytes=20)) == b"question"
    assert server.ended
    with pytest.raises(RuntimeError):
        client.seal(b"more")


def test_in_version_1_no_message_comes_before_the_head() -> None:
    pair = XWingKeyPair.generate()
    client = RequestSealerV1(pair.public_key)
    sealer = RequestOpenerV1(client.encapsulated_key, client.seal_head(b"head"), pair).response_sealer()
    with pytest.raises(RuntimeError):
        sealer.seal_message(piece_of(b"token"))
