"""The key answer: what plain EHBP clients read first, and the entries after it."""

import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_keys._sealing import key_entries
from server_keys._sealing.key_entries import PublishedKeys, XWingKey, with_length

X25519 = bytes(range(32))
XWING = XWingKey(7, bytes(range(256)) * 4 + bytes(192))
PLAIN = key_entries.key_answer(PublishedKeys(X25519, None))
WHOLE = key_entries.key_answer(PublishedKeys(X25519, XWING))
ENTRY = WHOLE[43:]


def test_the_bytes_of_an_answer() -> None:
    assert PLAIN.hex() == "000020" + X25519.hex() + "000400010002"
    assert WHOLE.hex() == PLAIN.hex() + "04c9" + "07" + "647a" + XWING.public_key.hex() + "000400010002"


@given(st.binary(min_size=32, max_size=32), st.integers(1, 255), st.binary(min_size=1216, max_size=1216))
def test_an_answer_is_read_as_it_was_written(x25519: bytes, key_id: int, public_key: bytes) -> None:
    for keys in (PublishedKeys(x25519, XWingKey(key_id, public_key)), PublishedKeys(x25519, None)):
        assert key_entries.keys_of(key_entries.key_answer(keys)) == keys


@pytest.mark.parametrize(
    "unknown",
    [
        b"\0",
        b"\xff" * 300,
        b"\7\x64\x7a",
        b"\0" + ENTRY[1:],
        ENTRY[:-1] + b"\3",
        ENTRY + b"\0",
        ENTRY[:1] + b"\x64\x7b" + ENTRY[3:],
    ],
    ids=["short", "long", "a kem alone", "key id 0", "another suite", "a longer one", "another kem"],
)
def test_entries_of_unknown_kinds_are_passed_over(unknown: bytes) -> None:
    before, after = with_length(unknown), with_length(unknown)
    assert key_entries.keys_of(PLAIN + before + WHOLE[41:] + after) == PublishedKeys(X25519, XWING)
    assert key_entries.keys_of(PLAIN + before) == PublishedKeys(X25519, None)


def test_every_answer_that_is_cut_in_an_entry_is_refused() -> None:
    for length in range(len(WHOLE)):
        if length == 41:
            continue
        with pytest.raises(ValueError, match=r"cut off|not a key configuration"):
            key_entries.keys_of(WHOLE[:length])


def test_two_keys_of_one_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="2 X-Wing keys"):
        key_entries.keys_of(WHOLE + WHOLE[41:])


def test_an_empty_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="cut off"):
        key_entries.keys_of(PLAIN + b"\0\0")


def test_an_answer_above_16_kib_is_refused() -> None:
    filled = WHOLE + with_length(bytes(16384 - len(WHOLE) - 2))
    assert len(filled) == 16384
    assert key_entries.keys_of(filled) == PublishedKeys(X25519, XWING)
    with pytest.raises(ValueError, match="16385 bytes: more than 16384"):
        key_entries.keys_of(filled + b"\0")


@given(st.binary(max_size=200))
def test_whatever_follows_is_read_or_refused(rest: bytes) -> None:
    try:
        keys = key_entries.keys_of(PLAIN + rest)
    except ValueError:
        return
    assert keys.x25519 == X25519


def test_a_key_id_follows_from_the_key_and_is_never_0() -> None:
    ids = set()
    for _ in range(5000):
        public_key = os.urandom(1216)
        ids.add(key_entries.key_id_of(public_key))
        assert key_entries.key_id_of(public_key) == hashlib.sha256(public_key).digest()[0] % 255 + 1
    assert ids == set(range(1, 256))
