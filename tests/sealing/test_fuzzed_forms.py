"""Headers, heads and key answers that nobody made: each is refused or read as the one thing that it says."""

from collections.abc import Callable

import pytest

from server_keys import KeyPair
from server_keys._native import XWingKeyPair
from server_keys._sealing.key_entries import PublishedKeys, XWingKey, key_answer, key_id_of, keys_of
from server_keys._sealing.wire_v1 import (
    RequestHead,
    RequestHeader,
    ResponseHead,
    ResponseHeader,
    parsed_request_head,
    parsed_request_header,
    parsed_response_head,
    parsed_response_header,
    request_head,
    request_header,
    response_head,
    response_header,
)
from tests.helpers.changed_bytes import changed

COUNT = 140_000
XWING = XWingKeyPair.generate().public_key
ANSWER = key_answer(PublishedKeys(KeyPair.generate().public_key, XWingKey(key_id_of(XWING), XWING)))


def of_text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return what parses a header, of which servers and clients make text in the same way."""
    return lambda message: parse(message.decode("latin-1"))


def written_anew(parsed: object) -> bytes:
    match parsed:
        case RequestHeader():
            return request_header(parsed).encode("latin-1")
        case ResponseHeader():
            return response_header(parsed).encode("latin-1")
        case RequestHead():
            return request_head(parsed)
        case ResponseHead():
            return response_head(parsed)
        case _:
            raise TypeError(parsed)


@pytest.mark.parametrize(
    ("parse", "whole"),
    [
        (of_text(parsed_request_header), request_header(RequestHeader(7, bytes(1120), bytes(40))).encode()),
        (of_text(parsed_response_header), response_header(ResponseHeader(bytes(32), bytes(23))).encode()),
        (parsed_request_head, b"POST /v1/models?limit=3 end"),
        (parsed_response_head, b"204 end"),
    ],
    ids=["a request's header", "a response's header", "a request's head", "a response's head"],
)
def test_what_is_read_is_written_the_same(parse: Callable[[bytes], object], whole: bytes) -> None:
    """So no two forms of one message exist."""
    assert written_anew(parse(whole)) == whole
    for _ in range(COUNT):
        message = changed(whole)
        try:
            parsed = parse(message)
        except ValueError:
            continue
        assert written_anew(parsed) == message


def test_a_changed_key_answer_gives_the_keys_that_are_in_it_or_none() -> None:
    for _ in range(COUNT):
        answer = changed(ANSWER)
        try:
            keys = keys_of(answer)
        except ValueError:
            continue
        assert answer[3:35] == keys.x25519
        assert keys.xwing is None or (keys.xwing.public_key in answer[41:] and keys.xwing.key_id)
