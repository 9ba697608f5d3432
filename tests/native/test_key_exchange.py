"""Key agreements, against the vectors of RFC 7748, `cryptography` and PyNaCl."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nacl.bindings
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st

from server_keys import InvalidPublicKeyError, KeyPair, generate_key_pairs
from server_keys._native import RequestSealer

VECTORS = Path(__file__).parents[1] / "vectors"
RFC7748: dict[str, Any] = json.loads((VECTORS / "rfc7748.json").read_bytes())
SMALL_ORDER_POINTS: list[dict[str, str]] = json.loads((VECTORS / "small_order_points.json").read_bytes())["points"]
RANDOM_PAIRS = 10_000

any_32_bytes = st.binary(min_size=32, max_size=32)


def x25519(private_key: bytes, public_key: bytes) -> bytes:
    return KeyPair.from_private_key(private_key).exchange(public_key)


def x25519_of_cryptography(private_key: bytes, public_key: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private_key).exchange(X25519PublicKey.from_public_bytes(public_key))


@pytest.mark.parametrize("product", RFC7748["products"])
def test_products_of_the_rfc(product: dict[str, str]) -> None:
    private_key, public_key = bytes.fromhex(product["private_key"]), bytes.fromhex(product["public_key"])
    assert x25519(private_key, public_key).hex() == product["shared_secret"]


@pytest.mark.parametrize("result", RFC7748["iterated"]["results"], ids=lambda result: str(result["iterations"]))
def test_iterated_products_of_the_rfc(result: dict[str, Any]) -> None:
    scalar = point = bytes.fromhex(RFC7748["iterated"]["start"])
    for _ in range(result["iterations"]):
        scalar, point = x25519(scalar, point), scalar
    assert scalar.hex() == result["shared_secret"]


@pytest.mark.parametrize(("own", "peer"), [("alice", "bob"), ("bob", "alice")])
def test_agreement_of_the_rfc(own: str, peer: str) -> None:
    agreement = RFC7748["agreement"]
    key_pair = KeyPair.from_private_key(bytes.fromhex(agreement[own]["private_key"]))
    assert key_pair.public_key.hex() == agreement[own]["public_key"]
    assert key_pair.exchange(bytes.fromhex(agreement[peer]["public_key"])).hex() == agreement["shared_secret"]


def test_random_pairs_agree_with_cryptography_in_both_directions() -> None:
    for ours in generate_key_pairs(RANDOM_PAIRS):
        theirs = X25519PrivateKey.generate()
        their_secret = theirs.exchange(X25519PublicKey.from_public_bytes(ours.public_key))
        assert ours.exchange(theirs.public_key().public_bytes_raw()) == their_secret


def test_random_pairs_agree_with_pynacl_in_both_directions() -> None:
    for ours in generate_key_pairs(RANDOM_PAIRS):
        private_key = os.urandom(32)
        their_secret = nacl.bindings.crypto_scalarmult(private_key, ours.public_key)
        assert ours.exchange(nacl.bindings.crypto_scalarmult_base(private_key)) == their_secret


@given(any_32_bytes)
@example(bytes(32))
@example(b"\xff" * 32)
def test_any_private_key_has_the_public_key_that_cryptography_derives(private_key: bytes) -> None:
    theirs = X25519PrivateKey.from_private_bytes(private_key).public_key().public_bytes_raw()
    assert KeyPair.from_private_key(private_key).public_key == theirs


@given(any_32_bytes, any_32_bytes | st.sampled_from([bytes.fromhex(p["public_key"]) for p in SMALL_ORDER_POINTS]))
@example(bytes(32), b"\xff" * 32)
def test_any_32_bytes_are_refused_or_agreed_with_as_cryptography_does(private_key: bytes, public_key: bytes) -> None:
    try:
        expected = x25519_of_cryptography(private_key, public_key)
    except ValueError:
        with pytest.raises(InvalidPublicKeyError, match="small order"):
            x25519(private_key, public_key)
    else:
        assert x25519(private_key, public_key) == expected


@pytest.mark.parametrize("small_order", SMALL_ORDER_POINTS, ids=lambda small_order: small_order["point"])
def test_a_point_of_small_order_is_refused(small_order: dict[str, str]) -> None:
    public_key = bytes.fromhex(small_order["public_key"])
    with pytest.raises(InvalidPublicKeyError, match="small order"):
        KeyPair.generate().exchange(public_key)
    with pytest.raises(InvalidPublicKeyError, match="small order"):
        RequestSealer(public_key)


@given(st.binary(max_size=100).filter(lambda public_key: len(public_key) != 32))
@example(b"")
@example(bytes(31))
@example(bytes(33))
def test_another_length_is_refused_and_named(public_key: bytes) -> None:
    with pytest.raises(InvalidPublicKeyError, match=f"has 32 bytes, this one has {len(public_key)}"):
        KeyPair.generate().exchange(public_key)
    with pytest.raises(InvalidPublicKeyError, match=f"has 32 bytes, this one has {len(public_key)}"):
        RequestSealer(public_key)


def test_a_length_that_no_key_ever_has_is_refused() -> None:
    with pytest.raises(InvalidPublicKeyError, match="this one has 16777216"):
        KeyPair.generate().exchange(bytes(1 << 24))


@pytest.mark.parametrize("bytes_like", [bytes, bytearray, memoryview])
def test_any_bytes_like_public_key_is_taken(bytes_like: Callable[[bytes], Any]) -> None:
    ours, peer = KeyPair.generate(), KeyPair.generate()
    assert ours.exchange(bytes_like(peer.public_key)) == peer.exchange(ours.public_key)


def test_a_view_that_is_not_contiguous_is_taken_by_its_bytes() -> None:
    ours, peer = KeyPair.generate(), KeyPair.generate()
    every_other = bytearray(64)
    every_other[::2] = peer.public_key
    assert ours.exchange(memoryview(every_other)[::2]) == peer.exchange(ours.public_key)


@pytest.mark.parametrize("wrong", ["a" * 32, "00" * 32, None, 32, [0] * 32, KeyPair.generate()], ids=type)
def test_a_wrong_type_is_refused_and_named(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"peer_public_key must be bytes-like .* not {type(wrong).__name__}"):
        KeyPair.generate().exchange(wrong)
