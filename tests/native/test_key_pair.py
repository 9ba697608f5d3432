"""Key pairs as Python objects: how they are made, compared, shown and erased, and what they refuse."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_keys import KeyErasedError, KeyPair, generate_key_pairs
from tests.helpers.scripts import run_script

MOST_AT_ONCE = 1_048_576
STAYS_HERE = "its private key never leaves its place in this process; pass public_key instead"


def agrees(key_pair: KeyPair) -> bool:
    """Whether the private key is the one of the public key."""
    peer = KeyPair.generate()
    return key_pair.exchange(peer.public_key) == peer.exchange(key_pair.public_key)


def test_a_generated_pair_holds_the_private_key_of_its_public_key() -> None:
    pair = KeyPair.generate()
    assert type(pair.public_key) is bytes
    assert len(pair.public_key) == 32
    assert not pair.erased
    assert agrees(pair)


@pytest.mark.parametrize("bytes_like", [bytes, bytearray, memoryview])
def test_a_private_key_is_taken_from_any_bytes_like_object(bytes_like: Callable[[bytes], Any]) -> None:
    pair = KeyPair.from_private_key(bytes_like(bytes(range(32))))
    assert pair == KeyPair.from_private_key(bytes(range(32)))
    assert agrees(pair)


def test_a_private_key_stays_what_it_was_when_the_callers_copy_changes() -> None:
    private_key = bytearray(range(32))
    pair = KeyPair.from_private_key(private_key)
    private_key[:] = bytes(32)
    assert agrees(pair)


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_private_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"an X25519 private key has 32 bytes, this one has {length}"):
        KeyPair.from_private_key(bytes(length))


@pytest.mark.parametrize("wrong", ["a" * 32, None, 32, [0] * 32], ids=type)
def test_a_private_key_of_a_wrong_type_is_refused_without_showing_it(wrong: Any) -> None:
    with pytest.raises(TypeError) as refused:
        KeyPair.from_private_key(wrong)
    assert str(refused.value) == f"private_key must be bytes-like (32 raw bytes), not {type(wrong).__name__}"


def test_there_is_no_other_way_to_make_one() -> None:
    for arguments in ((), (bytes(32),)):
        with pytest.raises(
            TypeError, match=r"write KeyPair\.generate\(\), or KeyPair\.from_private_key\(private_key\)"
        ):
            KeyPair(*arguments)
    with pytest.raises(TypeError, match="not safe"):
        object.__new__(KeyPair)
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Mine", (KeyPair,), {})
    with pytest.raises(AttributeError):
        KeyPair.generate().public_key = bytes(32)  # type: ignore[misc]


def test_repr_and_str_show_the_first_bytes_of_the_public_key_only() -> None:
    pair = KeyPair.generate()
    shown = f"<KeyPair {pair.public_key[:4].hex()}…>"
    assert [repr(pair), str(pair)] == [shown, shown]
    pair.erase()
    assert repr(pair) == f"<KeyPair {pair.public_key[:4].hex()}…, erased>"


def test_pairs_are_equal_when_their_public_keys_are() -> None:
    pair, same, other = (KeyPair.from_private_key(bytes([n]) * 32) for n in (1, 1, 2))
    assert pair == same
    assert hash(pair) == hash(same)
    assert pair != other
    assert {pair, same, other} == {same, other}
    same.erase()
    assert pair == same
    # An equal pair of its own: what happens to one does not happen to the other.
    assert not pair.erased


@pytest.mark.parametrize("other", [None, 1, "text", b"bytes"])
def test_a_pair_equals_nothing_else(other: object) -> None:
    pair = KeyPair.generate()
    assert pair != other
    assert pair != pair.public_key


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_a_pair_is_not_copied(duplicate: Callable[[object], object]) -> None:
    pair = KeyPair.generate()
    for whole in (pair, [pair]):
        if whole is pair or duplicate is copy.deepcopy:
            with pytest.raises(TypeError, match=f"a KeyPair cannot be copied: {STAYS_HERE}"):
                duplicate(whole)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pair_is_not_pickled(protocol: int) -> None:
    with pytest.raises(TypeError, match=f"a KeyPair cannot be pickled: {STAYS_HERE}"):
        pickle.dumps({"keys": KeyPair.generate()}, protocol)


def test_an_erased_pair_refuses_to_be_used_and_keeps_its_public_key() -> None:
    pair = KeyPair.generate()
    public_key = pair.public_key
    pair.erase()
    pair.erase()
    assert pair.erased
    assert pair.public_key == public_key
    with pytest.raises(
        KeyErasedError, match="it was erased, or it belongs to the process that this one was forked from"
    ):
        pair.exchange(KeyPair.generate().public_key)


@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 127, 128, 1000])
def test_many_pairs_are_as_many_as_asked_for_and_all_different(count: int) -> None:
    pairs = generate_key_pairs(count)
    assert type(pairs) is list
    assert len({pair.public_key for pair in pairs}) == len(pairs) == count
    assert all(map(agrees, pairs))


def test_pairs_made_at_once_are_erased_one_by_one() -> None:
    pairs = generate_key_pairs(200)
    for pair in pairs[::2]:
        pair.erase()
    assert [pair.erased for pair in pairs] == [True, False] * 100
    # Their places are taken again, without touching the others.
    more = generate_key_pairs(200)
    assert all(map(agrees, pairs[1::2] + more))


@given(st.integers(max_value=-1) | st.integers(min_value=MOST_AT_ONCE + 1))
def test_a_negative_or_absurd_count_is_refused_and_named(count: int) -> None:
    with pytest.raises(ValueError, match=rf"^count must be from 0 to {MOST_AT_ONCE}, not {count}$"):
        generate_key_pairs(count)


@pytest.mark.parametrize("wrong", [True, "1000", None, 3.0, [3]], ids=type)
def test_a_count_that_is_no_number_of_pairs_is_refused_and_named(wrong: Any) -> None:
    with pytest.raises(TypeError) as refused:
        generate_key_pairs(wrong)
    assert str(refused.value) == f"count must be an int, not {type(wrong).__name__}: {wrong!r}"


def test_a_memory_limit_gives_a_memory_error_wherever_it_is_met_and_the_interpreter_lives_on() -> None:
    script = """
        import resource, sys
        from server_keys import KeyPair, generate_key_pairs

        ours, peer = KeyPair.generate(), KeyPair.generate()
        with open("/proc/self/statm") as statm:
            pages = int(statm.read().split()[0])
        limit = pages * resource.getpagesize() + int(sys.argv[1]) * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            generate_key_pairs(65536)
        except MemoryError as error:
            print(error)
        else:
            print("made")
        assert ours.exchange(peer.public_key) == peer.exchange(ours.public_key)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert len(generate_key_pairs(1000)) == 1000
    """
    outcomes = [run_script(script, str(mebibytes)).strip() for mebibytes in (0, 10, 11, 12, 13, 14, 400)]
    refused = "the system has no memory for more private keys: erase some, or raise its limit"
    assert outcomes[0] == refused
    # Python's own lack of memory, for the objects around the keys, comes without a message.
    assert set(outcomes[1:-1]) <= {refused, "", "made"}
    assert outcomes[-1] == "made"
