"""X-Wing key pairs as Python objects: how they are made, compared, shown and erased, and what they refuse."""

import copy
import os
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest

from server_keys import KeyPair
from server_keys._native import RequestOpenerV1, RequestSealerV1, XWingKeyPair, erase_in
from server_keys.errors import KeyMismatchError
from tests.helpers.wire_v1 import XWingSecret, xwing_vectors

STAYS_HERE = "its seed never leaves its place in this process; pass public_key instead"


def opens(pair: XWingKeyPair) -> bool:
    """Whether the seed is the one of the public key."""
    sealer = RequestSealerV1(pair.public_key)
    try:
        return RequestOpenerV1(sealer.encapsulated_key, sealer.seal_head(b"head"), pair).head == b"head"
    except KeyMismatchError:
        return False


def test_the_drafts_seeds_have_the_drafts_public_keys() -> None:
    for vector in xwing_vectors():
        assert XWingKeyPair.from_seed(vector["seed"]).public_key == vector["pk"]


def test_random_seeds_have_the_public_keys_that_cryptography_finds() -> None:
    for _ in range(50):
        seed = os.urandom(32)
        assert XWingKeyPair.from_seed(seed).public_key == XWingSecret(seed).public_key


def test_a_generated_pair_holds_the_seed_of_its_public_key() -> None:
    pair = XWingKeyPair.generate()
    assert type(pair.public_key) is bytes
    assert len(pair.public_key) == 1216
    assert not pair.erased
    assert opens(pair)
    assert len({XWingKeyPair.generate().public_key for _ in range(50)}) == 50


@pytest.mark.parametrize("bytes_like", [bytes, bytearray, memoryview])
def test_a_seed_is_taken_from_any_bytes_like_object(bytes_like: Callable[[bytes], Any]) -> None:
    pair = XWingKeyPair.from_seed(bytes_like(bytes(range(32))))
    assert pair == XWingKeyPair.from_seed(bytes(range(32)))
    assert opens(pair)


def test_a_seed_stays_what_it_was_when_the_callers_copy_changes() -> None:
    seed = bytearray(range(32))
    pair = XWingKeyPair.from_seed(seed)
    seed[:] = bytes(32)
    assert opens(pair)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64, 96])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"the seed of an X-Wing key pair has 32 bytes, this one has {length}"):
        XWingKeyPair.from_seed(bytes(length))


@pytest.mark.parametrize("wrong", ["a" * 32, None, 32, [0] * 32], ids=type)
def test_a_seed_of_a_wrong_type_is_refused_without_showing_it(wrong: Any) -> None:
    with pytest.raises(TypeError) as refused:
        XWingKeyPair.from_seed(wrong)
    assert str(refused.value) == f"seed must be bytes-like (32 raw bytes), not {type(wrong).__name__}"


def test_there_is_no_other_way_to_make_one() -> None:
    for arguments in ((), (bytes(32),)):
        with pytest.raises(TypeError, match=r"write XWingKeyPair\.generate\(\), or XWingKeyPair\.from_seed\(seed\)"):
            XWingKeyPair(*arguments)
    with pytest.raises(TypeError, match="not safe"):
        object.__new__(XWingKeyPair)
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (XWingKeyPair,), {})
    with pytest.raises(AttributeError):
        XWingKeyPair.generate().public_key = bytes(1216)  # type: ignore[misc]


def test_repr_and_str_show_the_first_bytes_of_the_public_key_only() -> None:
    pair = XWingKeyPair.generate()
    shown = f"<XWingKeyPair {pair.public_key[:4].hex()}…>"
    assert [repr(pair), str(pair)] == [shown, shown]
    pair.erase()
    assert repr(pair) == f"<XWingKeyPair {pair.public_key[:4].hex()}…, erased>"


def test_pairs_are_equal_when_their_public_keys_are() -> None:
    pair, same, other = (XWingKeyPair.from_seed(bytes([n]) * 32) for n in (1, 1, 2))
    assert pair == same
    assert hash(pair) == hash(same)
    assert pair != other
    assert {pair, same, other} == {same, other}
    same.erase()
    assert pair == same
    assert not pair.erased
    assert opens(pair)


@pytest.mark.parametrize("other", [None, 1, "text", b"bytes", KeyPair.generate()], ids=type)
def test_a_pair_equals_nothing_else(other: object) -> None:
    pair = XWingKeyPair.generate()
    assert pair != other
    assert pair != pair.public_key


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_pair_is_not_copied(duplicate: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match=f"an XWingKeyPair cannot be copied: {STAYS_HERE}"):
        duplicate(XWingKeyPair.generate())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pair_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match=f"an XWingKeyPair cannot be pickled: {STAYS_HERE}"):
        pickle.dumps({"keys": XWingKeyPair.generate()}, protocol)


def test_an_erased_pair_opens_nothing_and_keeps_its_public_key() -> None:
    pair = XWingKeyPair.generate()
    public_key = pair.public_key
    pair.erase()
    pair.erase()
    assert pair.erased
    assert pair.public_key == public_key
    # A server answers as to any key that it does not accept: the client fetches the key anew.
    assert not opens(pair)


def test_a_pair_is_erased_on_time_by_whichever_deadline_is_first() -> None:
    at_once, soon, later = (XWingKeyPair.generate() for _ in range(3))
    erase_in(at_once, 0)
    erase_in(soon, 1000)
    erase_in(soon, 0.02)
    erase_in(later, 1000)
    assert [at_once.erased, later.erased] == [True, False]
    deadline = time.monotonic() + 20
    while not soon.erased:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert opens(later)


@pytest.mark.parametrize("wrong", [None, b"pair", object()], ids=type)
def test_nothing_else_is_erased_on_time(wrong: Any) -> None:
    with pytest.raises(TypeError, match="XWingKeyPair"):
        erase_in(wrong, 1)
