"""What the headers and the sealed heads of version 1 carry, and what is refused as one of them."""

import base64
import os
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_keys._sealing import wire_v1
from server_keys._sealing.wire_v1 import RequestHead, RequestHeader, ResponseHead, ResponseHeader

ENCAPSULATED_KEY = bytes(range(256)) * 4 + bytes(96)
NONCE = bytes(range(32))

tokens = st.text("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcz", min_size=1, max_size=32).map(str.encode)
targets = st.binary(min_size=1, max_size=200).map(lambda target: b"/" + target.replace(b" ", b"%20"))


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@given(st.integers(1, 255), st.binary(min_size=1120, max_size=1120), st.binary(max_size=4149))
def test_a_request_header_is_read_as_it_was_written(key_id: int, encapsulated_key: bytes, sealed_head: bytes) -> None:
    header = RequestHeader(key_id, encapsulated_key, sealed_head)
    value = wire_v1.request_header(header)
    assert wire_v1.parsed_request_header(value) == header
    assert wire_v1.is_versioned(value)
    assert value.isascii()


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_a_response_header_is_read_as_it_was_written(nonce: bytes, sealed_head: bytes) -> None:
    header = ResponseHeader(nonce, sealed_head)
    assert wire_v1.parsed_response_header(wire_v1.response_header(header)) == header


def test_the_bytes_of_the_headers() -> None:
    assert (
        wire_v1.request_header(RequestHeader(7, ENCAPSULATED_KEY, b"\xff" * 3)) == f"1.07.{b64(ENCAPSULATED_KEY)}.____"
    )
    assert wire_v1.response_header(ResponseHeader(NONCE, b"\xfb\xef")) == f"1.{b64(NONCE)}.--8"


def test_plain_ehbp_is_told_apart() -> None:
    assert not wire_v1.is_versioned("ab" * 32)
    assert wire_v1.is_versioned("2.anything")


MALFORMED_REQUESTS = {
    "another version": lambda key, head: f"2.07.{key}.{head}",
    "version 01": lambda key, head: f"01.07.{key}.{head}",
    "no version": lambda key, head: f".07.{key}.{head}",
    "no head": lambda key, head: f"1.07.{key}",
    "a field too many": lambda key, head: f"1.07.{key}.{head}.",
    "key id 0": lambda key, head: f"1.00.{key}.{head}",
    "a key id in capitals": lambda key, head: f"1.0A.{key}.{head}",
    "a key id of one digit": lambda key, head: f"1.7.{key}.{head}",
    "a key id of three digits": lambda key, head: f"1.007.{key}.{head}",
    "a key id of other digits": lambda key, head: f"1.٠٧.{key}.{head}",
    "a signed key id": lambda key, head: f"1.+7.{key}.{head}",
    "a short key": lambda key, head: f"1.07.{b64(ENCAPSULATED_KEY[:-1])}.{head}",
    "a long key": lambda key, head: f"1.07.{b64(ENCAPSULATED_KEY + b'x')}.{head}",
    "no key": lambda key, head: f"1.07..{head}",
    "padding": lambda key, head: f"1.07.{key}.AAA=",
    "the other alphabet": lambda key, head: f"1.07.{key}.++//",
    "white space in the head": lambda key, head: f"1.07.{key}.AA AA",
    "white space around it": lambda key, head: f" 1.07.{key}.{head}",
    "a line break after it": lambda key, head: f"1.07.{key}.{head}\n",
    "a head that no bytes have": lambda key, head: f"1.07.{key}.AAAAA",
    "a head with idle bits": lambda key, head: f"1.07.{key}.AAB",
    "a head that is too long": lambda key, head: f"1.07.{key}.{b64(bytes(4150))}",
    "64 KiB": lambda key, head: f"1.07.{key}.{'A' * 65536}",
    "64 KiB of dots": lambda key, head: "1" + "." * 65536,
    "letters of other scripts": lambda key, head: f"1.07.{key}.ääää",
    "nothing": lambda key, head: "",
}


@pytest.mark.parametrize("value", MALFORMED_REQUESTS.values(), ids=MALFORMED_REQUESTS)
def test_a_request_header_of_another_form_is_refused_by_words_that_quote_nothing(
    value: Callable[[str, str], str],
) -> None:
    secret = b64(b"a secret that was put into the head")
    text = value(b64(ENCAPSULATED_KEY), secret)
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - nobody needs another
        wire_v1.parsed_request_header(text)
    assert secret not in str(refused.value)
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize(
    "value",
    [
        *("", "1", "1.", "ab" * 32, f"2.{b64(NONCE)}.AA", f"1.{b64(NONCE)}", f"1.{b64(NONCE)}.AA.AA"),
        *(f"1.{b64(NONCE)}.AB", f"1.{b64(NONCE[:-1])}.AA", f"1.{b64(NONCE)}=.AA", f"1.{b64(NONCE)}.{'A' * 6000}"),
    ],
)
def test_a_response_header_of_another_form_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"^(the header|a field|a sealed head) must"):
        wire_v1.parsed_response_header(value)


@given(st.text(max_size=60) | st.text("1.0AaZ_-=", max_size=60))
def test_whatever_comes_as_a_header_is_read_or_refused(value: str) -> None:
    for parse in (wire_v1.parsed_request_header, wire_v1.parsed_response_header):
        try:
            parse(value)
        except ValueError:
            continue


@given(st.data())
def test_no_two_values_are_one_header(data: st.DataObject) -> None:
    value = wire_v1.response_header(ResponseHeader(NONCE, b"0123456789"))
    at = data.draw(st.integers(0, len(value) - 1))
    other = value[:at] + data.draw(st.characters(codec="ascii")) + value[at + 1 :]
    try:
        read = wire_v1.parsed_response_header(other)
    except ValueError:
        return
    assert (other == value) == (read == ResponseHeader(NONCE, b"0123456789"))


@given(tokens, targets, st.booleans())
def test_a_request_head_is_read_as_it_was_written(method: bytes, target: bytes, has_body: bool) -> None:
    head = RequestHead(method, target, has_body)
    assert wire_v1.parsed_request_head(wire_v1.request_head(head)) == head


@given(st.integers(100, 999), st.booleans())
def test_a_response_head_is_read_as_it_was_written(status: int, has_body: bool) -> None:
    head = ResponseHead(status, has_body)
    assert wire_v1.parsed_response_head(wire_v1.response_head(head)) == head


def test_the_bytes_of_the_heads() -> None:
    assert wire_v1.request_head(RequestHead(b"POST", b"/v1/x?y=1", has_body=True)) == b"POST /v1/x?y=1"
    assert wire_v1.request_head(RequestHead(b"GET", b"/", has_body=False)) == b"GET / end"
    assert wire_v1.response_head(ResponseHead(204, has_body=False)) == b"204 end"


@pytest.mark.parametrize(
    "head",
    [b"", b"GET", b"GET ", b" /", b"GET  /", b"GET / x", b"GET / end end", b"GET end", b"G\0T /", b"G" * 33 + b" /"],
)
def test_a_request_head_of_another_form_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="a method and a target"):
        wire_v1.parsed_request_head(head)


@pytest.mark.parametrize(
    "head", [b"", b"20", b"2000", b"099", b"200 ", b"200end", b"200 end ", b" 200", b"+20", b"2\xb200"]
)
def test_a_response_head_of_another_form_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="a status"):
        wire_v1.parsed_response_head(head)


def test_a_long_target_stands_as_its_hash() -> None:
    longest = b"/" + b"x" * 4095
    assert wire_v1.sealed_target(longest) == longest
    hashed = wire_v1.sealed_target(longest + b"y")
    # echo -n "/xxx...y" | sha256sum
    assert hashed.startswith(b"sha256-")
    assert len(hashed) == len(b"sha256-") + 43
    assert hashed != wire_v1.sealed_target(longest + b"z")
    header = RequestHeader(
        255, os.urandom(1120), bytes(16) + wire_v1.request_head(RequestHead(b"M" * 32, longest, False))
    )
    assert len(wire_v1.request_header(header)) < 8152 - len("Ehbp-Encapsulated-Key: ")  # what nginx takes


def test_a_header_of_64_kib_costs_no_more_than_reading_it() -> None:
    value = "1." + "a." * 32768
    began_at = time.process_time()
    for _ in range(100):
        with pytest.raises(ValueError, match="fields"):
            wire_v1.parsed_request_header(value)
    assert time.process_time() - began_at < 5
