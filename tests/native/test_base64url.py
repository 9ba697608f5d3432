"""base64url without padding, in which headers and identities carry bytes: each sequence of bytes has one text."""

import base64
import os
import string

import pytest

from server_keys._native import decode_base64url, encode_base64url

ALPHABET = string.ascii_letters + string.digits + "-_"


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 31, 32, 1120])
def test_bytes_become_what_the_standard_library_says_and_come_back(length: int) -> None:
    data = os.urandom(length)
    text = encode_base64url(data)
    assert text == base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    assert decode_base64url(text) == data
    assert encode_base64url(memoryview(data)) == encode_base64url(bytearray(data)) == text


def test_of_all_texts_of_two_characters_only_those_decode_that_a_byte_has() -> None:
    decoded = {}
    for first in ALPHABET:
        for second in ALPHABET:
            try:
                decoded[first + second] = decode_base64url(first + second)
            except ValueError:
                continue
    assert decoded == {encode_base64url(bytes([byte])): bytes([byte]) for byte in range(256)}


@pytest.mark.parametrize(
    "text", ["A", "AAAAA", "AA==", "AAA=", "=", "AA\n", " AA", "A A", "+A", "/A", "é_", "A\0", "\ud800A"]
)
def test_other_texts_are_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - also what a lone surrogate raises
        decode_base64url(text)
    if text.isprintable() and len(text) > 1:
        assert text not in str(refused.value)


def test_only_bytes_are_encoded_and_only_text_is_decoded() -> None:
    with pytest.raises(TypeError):
        encode_base64url("AA")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        decode_base64url(b"AA")  # type: ignore[arg-type]
