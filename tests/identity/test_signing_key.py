"""Signing keys as Python objects: what they sign, and that their seed stays where it is."""

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from server_keys import KeyErasedError
from server_keys._native import SigningKey, is_signature, is_signing_public_key
from tests.helpers.scripts import run_script
from tests.helpers.signed_answers import VECTORS, OtherSigner, identity_vectors

SEED = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return OtherSigner(SEED).write_to(tmp_path / "server.key")


@pytest.fixture
def key(path: Path) -> SigningKey:
    return SigningKey.from_file(path)


def test_the_vectors_are_what_another_library_computes() -> None:
    assert json.loads((VECTORS / "identity.json").read_text()) == identity_vectors()


@given(message=st.binary(max_size=5000))
def test_it_signs_as_another_library_does(message: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = OtherSigner(SEED).write_to(tmp_path_factory.mktemp("key") / "server.key")
    key = SigningKey.from_file(path)
    assert key.public_key == OtherSigner(SEED).public_key
    assert key.sign(message) == OtherSigner(SEED).sign(message)


@pytest.mark.parametrize("bytes_like", [bytes, bytearray, memoryview])
def test_messages_are_bytes_like(key: SigningKey, bytes_like: Any) -> None:
    signature = key.sign(bytes_like(b"message"))
    assert signature == OtherSigner(SEED).sign(b"message")
    assert is_signature(bytes_like(key.public_key), bytes_like(b"message"), bytes_like(signature))


@pytest.mark.parametrize("wrong", [None, "message", 5, [1]])
def test_what_is_not_bytes_like_is_refused(key: SigningKey, wrong: Any) -> None:
    with pytest.raises(TypeError):
        key.sign(wrong)
    with pytest.raises(TypeError):
        is_signature(wrong, b"", b"")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=64), st.binary(min_size=64, max_size=64))
def test_no_other_signature_is_taken_than_one_that_another_library_takes(
    public_key: bytes, message: bytes, signature: bytes
) -> None:
    if is_signature(public_key, message, signature):
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        assert not is_signature(public_key, message, signature)


@pytest.mark.parametrize("vector", identity_vectors()["refused"], ids=lambda vector: vector["case"])
def test_the_check_is_strict(vector: dict[str, str]) -> None:
    assert not is_signature(*(bytes.fromhex(vector[name]) for name in ("public_key", "message", "signature")))


def test_only_points_of_the_curve_that_are_not_of_small_order_can_sign(key: SigningKey) -> None:
    assert is_signing_public_key(key.public_key)
    no_points = [b"", bytes(31), key.public_key + b"\0", bytes(32), (1).to_bytes(32, "little"), b"\x02" + bytes(31)]
    assert not any(map(is_signing_public_key, no_points))


def test_an_erased_key_signs_nothing_and_keeps_its_public_key(key: SigningKey) -> None:
    assert not key.erased
    key.erase()
    key.erase()
    assert key.erased
    assert key.public_key == OtherSigner(SEED).public_key
    with pytest.raises(KeyErasedError):
        key.sign(b"")


def test_its_text_shows_the_public_key_alone(key: SigningKey) -> None:
    assert repr(key) == str(key) == f"<SigningKey {key.public_key[:4].hex()}…>"
    key.erase()
    assert repr(key) == f"<SigningKey {key.public_key[:4].hex()}…, erased>"
    public = [name for name in dir(key) if not name.startswith("__")]
    assert public == ["erase", "erased", "from_file", "new_file", "public_key", "sign"]


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, pickle.dumps])
def test_it_is_neither_copied_nor_pickled(key: SigningKey, how: Any) -> None:
    with pytest.raises(TypeError, match="its seed never leaves its place in this process"):
        how(key)


def test_there_is_no_other_way_to_make_one() -> None:
    with pytest.raises(TypeError, match=r"SigningKey\.from_file\(path\)"):
        SigningKey()
    with pytest.raises(TypeError):
        type("Other", (SigningKey,), {})


def test_a_forked_child_has_none_and_reads_its_own(path: Path) -> None:
    run_script(
        """
        import os, sys
        from server_keys import KeyErasedError
        from server_keys._native import SigningKey

        key = SigningKey.from_file(sys.argv[1])
        signature = key.sign(b"message")
        if os.fork() == 0:
            try:
                key.sign(b"message")
            except KeyErasedError:
                assert key.erased
                os._exit(0 if SigningKey.from_file(sys.argv[1]).sign(b"message") == signature else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
        assert key.sign(b"message") == signature
        """,
        os.fspath(path),
    )
