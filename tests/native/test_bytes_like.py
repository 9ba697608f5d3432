"""Bytes that the native module takes: any buffer, and parts of a `bytes` without a copy."""

import tracemalloc

import pytest
from typing_extensions import Buffer

from server_keys import KeyPair
from server_keys._native import RequestOpener, RequestSealer

MIB = 1024 * 1024
TEXT = bytes(range(256))


def sealed_and_opened(plaintext: Buffer, repeated: int = 1) -> bytes:
    key_pair = KeyPair.generate()
    sealer = RequestSealer(key_pair.public_key)
    opener = RequestOpener(sealer.encapsulated_key, [key_pair])
    return b"".join(opener.feed(memoryview(sealer.seal(plaintext))[:]) for _ in range(repeated))


@pytest.mark.parametrize(
    ("plaintext", "expected"),
    [
        (memoryview(TEXT)[10:20], TEXT[10:20]),
        (memoryview(memoryview(TEXT)[10:])[:5], TEXT[10:15]),
        (memoryview(TEXT)[::2], TEXT[::2]),
        (memoryview(TEXT)[::-1], TEXT[::-1]),
        (memoryview(TEXT).cast("I")[1:3], TEXT[4:12]),
        (memoryview(TEXT).cast("B", (16, 16)), TEXT),
        (memoryview(bytearray(TEXT))[10:20], TEXT[10:20]),
        (bytearray(TEXT), TEXT),
    ],
    ids=[
        "part",
        "part of a part",
        "every other",
        "backwards",
        "integers",
        "two dimensions",
        "of a bytearray",
        "bytearray",
    ],
)
def test_the_bytes_of_any_buffer_are_taken(plaintext: Buffer, expected: bytes) -> None:
    assert sealed_and_opened(plaintext, repeated=2) == 2 * expected


@pytest.mark.parametrize("nothing", [b"", memoryview(b""), memoryview(TEXT)[3:3], bytearray()], ids=repr)
def test_no_bytes_are_taken_too(nothing: Buffer) -> None:
    assert RequestSealer(KeyPair.generate().public_key).seal(nothing) == b""


def test_a_part_of_a_bytes_is_not_copied() -> None:
    sealer = RequestSealer(KeyPair.generate().public_key)
    part = memoryview(bytes(9 * MIB))[MIB:]
    tracemalloc.start()
    try:
        sealed = sealer.seal(part)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(sealed) == len(part) + 20
    assert peak_bytes < len(sealed) + MIB


def test_what_another_thread_may_change_is_copied() -> None:
    sealer = RequestSealer(KeyPair.generate().public_key)
    text = bytearray(8 * MIB)
    tracemalloc.start()
    try:
        sealer.seal(memoryview(text))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes > 2 * len(text)
