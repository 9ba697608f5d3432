"""The signature of a key answer: its last entry, by which clients know whose keys these are.

| bytes | content |
|---|---|
| 1 | 00: no key id |
| 2 | 0000: no KEM (reserved), so that nobody takes the entry for a key |
| 1 | 01: Ed25519 |
| 8 | the beginning of SHA-256(public key of the identity) |
| 8 | when it was signed, in seconds since 1970, big-endian |
| 8 | until when it holds, likewise |
| 64 | the signature |

Signed are a label, the two times, and every byte of the answer before this entry's length.
"""

import hashlib
from typing import NamedTuple

from server_keys._sealing.key_entries import MOST_ANSWER_BYTES, entries_of, with_length

ED25519 = 1
SIGNATURE_BYTES = 64

_LABEL = b"server-keys key configuration v1\0"
_SIGNATURE_KIND = bytes.fromhex("00 0000")
_HASH_BYTES = 8
_TIME_BYTES = 8
_ENTRY_BYTES = len(_SIGNATURE_KIND) + 1 + _HASH_BYTES + 2 * _TIME_BYTES + SIGNATURE_BYTES
_LATEST_TIME = 2 ** (8 * _TIME_BYTES) - 1


class KeySignature(NamedTuple):
    """A signature of a key answer. Times are in whole seconds since 1970."""

    identity_hash: bytes
    created: int
    expires: int
    signature: bytes


def identity_hash(public_key: bytes) -> bytes:
    """Return the 8 bytes by which a signature names the identity with this Ed25519 public key."""
    return hashlib.sha256(public_key).digest()[:_HASH_BYTES]


def signed_message(answer: bytes, created: int, expires: int) -> bytes:
    """Return what is signed for a key answer that has no signature yet.

    Raises:
        ValueError: a time is negative or has more than 64 bits.
    """
    if not 0 <= created <= expires <= _LATEST_TIME:
        raise ValueError(f"a key answer cannot be signed from {created} until {expires}")
    return _LABEL + created.to_bytes(_TIME_BYTES, "big") + expires.to_bytes(_TIME_BYTES, "big") + answer


def with_signature(answer: bytes, signature: KeySignature) -> bytes:
    """Return a key answer with its signature."""
    return answer + with_length(
        _SIGNATURE_KIND
        + bytes([ED25519])
        + signature.identity_hash
        + signature.created.to_bytes(_TIME_BYTES, "big")
        + signature.expires.to_bytes(_TIME_BYTES, "big")
        + signature.signature
    )


def signature_of(answer: bytes) -> tuple[bytes, KeySignature | None]:
    """Return what is signed of a key answer, and its signature, unchecked; None if it has none.

    Raises:
        ValueError: the answer is too long, an entry is cut off, there are several signatures, something follows one,
            its algorithm is unknown, or it has another length than a signature.
    """
    if len(answer) > MOST_ANSWER_BYTES:
        raise ValueError(f"it has {len(answer)} bytes, more than {MOST_ANSWER_BYTES}")
    entries = entries_of(answer)
    found = [entry for entry in entries if entry.startswith(_SIGNATURE_KIND)]
    if not found:
        return answer, None
    if len(found) > 1:
        raise ValueError(f"it has {len(found)} signatures, and may have one")
    if not entries[-1].startswith(_SIGNATURE_KIND):
        raise ValueError("it goes on after its signature, which covers only what is before")
    return answer[: -len(with_length(found[0]))], _parsed(found[0])


def _parsed(entry: bytes) -> KeySignature:
    algorithm = entry[len(_SIGNATURE_KIND) : len(_SIGNATURE_KIND) + 1]
    if algorithm and algorithm[0] != ED25519:
        raise ValueError(f"its signature is of algorithm {algorithm[0]}, and 1 (Ed25519) alone is known")
    if len(entry) != _ENTRY_BYTES:
        raise ValueError(f"its signature's entry has {len(entry)} bytes instead of {_ENTRY_BYTES}")
    times_at = len(_SIGNATURE_KIND) + 1 + _HASH_BYTES
    created, expires = (
        int.from_bytes(entry[at : at + _TIME_BYTES], "big") for at in (times_at, times_at + _TIME_BYTES)
    )
    return KeySignature(entry[times_at - _HASH_BYTES : times_at], created, expires, entry[times_at + 2 * _TIME_BYTES :])
