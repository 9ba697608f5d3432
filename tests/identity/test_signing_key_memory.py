"""The seed of an identity is in protected memory or nowhere, whatever was done with it: read from outside."""

import base64
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.helpers.key_traces import clamped, radix_16_digits
from tests.helpers.known_key_victim import victim
from tests.helpers.signed_answers import ORDER, OtherSigner

IMPORT = "\nfrom server_keys._native import SigningKey\n"
MESSAGE = b"message"


def words(secrets: Iterable[bytes]) -> set[bytes]:
    """Pieces of secrets, each of 64 bits that do not occur by chance, and the same in SHA-512's order of bytes."""
    pieces = {secret[start : start + 8] for secret in secrets for start in range(0, len(secret) - 7, 8)}
    return pieces | {piece[::-1] for piece in pieces}


def digits(scalar: bytes) -> set[bytes]:
    found = bytes(digit & 0xFF for digit in radix_16_digits(scalar))
    return {found[start : start + 16] for start in range(0, 64, 16)}


def forms(seed: bytes) -> tuple[set[bytes], set[bytes]]:
    """What may be in protected memory: the seed; and what may be nowhere: all that is made of it (RFC 8032, 5.1.6).

    That is the expanded key, its scalar, the nonce of the signature, their digits, and the seed's text in the file.
    """
    expanded = hashlib.sha512(seed).digest()
    scalar = clamped(expanded[:32])
    reduced = (int.from_bytes(scalar, "little") % ORDER).to_bytes(32, "little")
    nonce_hash = hashlib.sha512(expanded[32:] + MESSAGE).digest()
    nonce = (int.from_bytes(nonce_hash, "little") % ORDER).to_bytes(32, "little")
    text = base64.b64encode(bytes.fromhex("302e020100300506032b657004220420") + seed)[22:]
    derived = words([expanded, scalar, reduced, nonce_hash, nonce]) | digits(reduced) | digits(nonce)
    return words([seed]), derived | {text[start : start + 14] for start in range(0, 42, 14)}


@pytest.fixture
def seed() -> bytes:
    return os.urandom(32)


@pytest.fixture
def path(tmp_path: Path, seed: bytes) -> str:
    return os.fspath(OtherSigner(seed).write_to(tmp_path / "server.key"))


def test_a_key_that_is_read_and_signs_is_in_protected_memory_only_and_nowhere_once_erased(
    path: str, seed: bytes
) -> None:
    script = f"""
        {IMPORT.strip()}
        key = far_down(lambda: SigningKey.from_file(sys.argv[2]))
        reached("read")
        for _ in range(10):
            signature = far_down(lambda: key.sign({MESSAGE!r}))
        reached("signed", signature.hex())
        if os.fork() == 0:
            reached("forked")
            os._exit(0)
        os.wait()
        key.erase()
        reached("erased")
    """
    of_seed, derived = forms(seed)
    with victim(script, path) as process:
        for step in ("read", "signed"):
            report = process.run_to(step)
            where = process.where(of_seed)
            assert where
            assert all(mapping.is_protected for mapping in where)
            assert process.where(derived) == []
        assert bytes.fromhex(report) == OtherSigner(seed).sign(MESSAGE)
        process.run_to("forked")
        assert process.child().where(of_seed | derived) == []
        process.run_to("erased")
        assert process.where(of_seed | derived) == []


def test_the_last_reference_takes_the_seed_with_it(path: str, seed: bytes) -> None:
    script = f"""
        {IMPORT.strip()}
        key = far_down(lambda: SigningKey.from_file(sys.argv[2]))
        reached("held")
        del key
        reached("let go")
    """
    of_seed, derived = forms(seed)
    with victim(script, path) as process:
        process.run_to("held")
        assert process.where(of_seed)
        process.run_to("let go")
        assert process.where(of_seed | derived) == []


def test_a_new_key_goes_to_its_file_and_is_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "server.key"
    script = f"""
        {IMPORT.strip()}
        key = far_down(lambda: SigningKey.new_file(sys.argv[2]))
        reached("made")
        del key
        reached("let go")
    """
    with victim(script, os.fspath(path)) as process:
        process.run_to("made")
        # Read here, in another process.
        seed = base64.b64decode(path.read_bytes().splitlines()[1])[16:]
        of_seed, derived = forms(seed)
        where = process.where(of_seed)
        assert where
        assert all(mapping.is_protected for mapping in where)
        assert process.where(derived) == []
        process.run_to("let go")
        assert process.where(of_seed | derived) == []


def test_a_file_whose_public_key_is_another_ones_leaves_nothing(tmp_path: Path, seed: bytes) -> None:
    der = bytes.fromhex("3051020101300506032b657004220420") + seed + bytes.fromhex("812100") + bytes(32)
    path = tmp_path / "server.key"
    body = base64.b64encode(der).decode()
    path.write_text(f"-----BEGIN PRIVATE KEY-----\n{body[:64]}\n{body[64:]}\n-----END PRIVATE KEY-----\n")
    path.chmod(0o600)
    script = f"""
        {IMPORT.strip()}
        try:
            far_down(lambda: SigningKey.from_file(sys.argv[2]))
        except ValueError as error:
            reached("refused", str(error))
    """
    with victim(script, os.fspath(path)) as process:
        assert "the public key of another one" in process.run_to("refused")
        assert process.where(set().union(*forms(seed))) == []


@pytest.mark.parametrize("copied", ["seed", "text", "scalar"])
def test_the_search_finds_a_copy_outside_of_the_protected_memory(path: str, seed: bytes, copied: str) -> None:
    reads = {
        "seed": "copy = os.read(int(sys.argv[1]), 64)",
        "text": "copy = open(sys.argv[2], 'rb').read()",
        "scalar": "import hashlib; copy = hashlib.sha512(os.read(int(sys.argv[1]), 64)).digest()",
    }
    with victim(f"{reads[copied]}\nreached('copied')", path, private_key=seed) as process:
        process.run_to("copied")
        assert process.where(set().union(*forms(seed)))
