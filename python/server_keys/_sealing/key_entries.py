"""The key answer: the X25519 key that every EHBP client reads, and after it entries for those who know more.

The first 41 bytes are plain EHBP's. Each entry after them is its length (16 bits, big-endian) and its content. Whoever
does not know an entry's kind passes over it.
"""

import hashlib
from typing import NamedTuple

from server_keys._sealing.protocol import key_config, public_key_of

MOST_ANSWER_BYTES = 16 * 1024
"""A longer key answer is refused."""
XWING_PUBLIC_KEY_BYTES = 1216

_FIRST_BYTES = 41
_LENGTH_BYTES = 2
# RFC 9458, section 3: after the key id the KEM (X-Wing), then the key, then one suite of HKDF-SHA256 and AES-256-GCM.
_XWING = bytes.fromhex("647a")
_AFTER_KEY = bytes.fromhex("0004 0001 0002")
_XWING_ENTRY_BYTES = 1 + len(_XWING) + XWING_PUBLIC_KEY_BYTES + len(_AFTER_KEY)


class XWingKey(NamedTuple):
    """An X-Wing key that a server publishes: its id (1 to 255) and its 1,216 bytes."""

    key_id: int
    public_key: bytes


class PublishedKeys(NamedTuple):
    """The keys of one answer. `xwing` is None if the server knows plain EHBP alone."""

    x25519: bytes
    xwing: XWingKey | None


def key_id_of(xwing_public_key: bytes) -> int:
    """Return the id (1 to 255) by which requests name an X-Wing key.

    It follows from the key, so all processes that have the key agree on it. Two keys may have the same.
    """
    return hashlib.sha256(xwing_public_key).digest()[0] % 255 + 1


def key_answer(keys: PublishedKeys) -> bytes:
    """Return the content of the answer that publishes `keys`."""
    answer = key_config(keys.x25519)
    if keys.xwing is not None:
        answer += with_length(bytes([keys.xwing.key_id]) + _XWING + keys.xwing.public_key + _AFTER_KEY)
    return answer


def with_length(entry: bytes) -> bytes:
    """Return an entry as it stands in a key answer."""
    return len(entry).to_bytes(_LENGTH_BYTES, "big") + entry


def keys_of(answer: bytes) -> PublishedKeys:
    """Return the keys in a key answer.

    Raises:
        ValueError: it is too long, it does not begin with a key of EHBP's suite, an entry is cut off, or there are two
            X-Wing keys.
    """
    if len(answer) > MOST_ANSWER_BYTES:
        raise ValueError(f"a key answer of {len(answer)} bytes: more than {MOST_ANSWER_BYTES}")
    x25519 = public_key_of(answer)
    found = [key for entry in entries_of(answer) if (key := _xwing_of(entry)) is not None]
    if len(found) > 1:
        raise ValueError(f"{len(found)} X-Wing keys: a key answer has one at most")
    return PublishedKeys(x25519, found[0] if found else None)


def entries_of(answer: bytes) -> list[bytes]:
    """Return the entries of a key answer, without their lengths.

    Raises:
        ValueError: the last one is cut off.
    """
    entries, rest = [], answer[_FIRST_BYTES:]
    while rest:
        length = int.from_bytes(rest[:_LENGTH_BYTES], "big")
        entry, rest = rest[_LENGTH_BYTES : _LENGTH_BYTES + length], rest[_LENGTH_BYTES + length :]
        if len(entry) < length or not length:
            raise ValueError("a key answer whose last entry is cut off")
        entries.append(entry)
    return entries


def _xwing_of(entry: bytes) -> XWingKey | None:
    if entry[1:3] != _XWING or len(entry) != _XWING_ENTRY_BYTES or not entry.endswith(_AFTER_KEY) or not entry[0]:
        return None
    return XWingKey(entry[0], entry[3 : 3 + XWING_PUBLIC_KEY_BYTES])
