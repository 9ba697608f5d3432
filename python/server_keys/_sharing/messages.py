"""What members leave in the store in the open: the register, which names the newest epoch, and the asks for boxes.

Both carry a tag that only members can make. The private keys themselves travel in boxes, which the native module seals.
"""

import hashlib
import json
import struct
from dataclasses import dataclass
from typing import Any, Self

from server_keys._native import GroupKeys
from server_keys._sharing.epoch import NONE, Rank

_VERSION = 1
_TAG_BYTES = 32
# The register: version, number, public key. It says nothing of time, so whoever puts it back puts the same bytes back.
_REGISTER = struct.Struct(">BQ32s")
# The ask: version, kind and length of the one-time key; then the key, the two numbers, and who asks.
_ASK_HEAD = struct.Struct(">BHH")
_ASK_NUMBERS = struct.Struct(">QQ")
# For each length of a one-time key its kind: the KEM's number, of X25519 (RFC 9180) and of X-Wing.
_KIND_OF_LENGTH = {32: 0x0020, 1216: 0x647A}
_MOST_WHO_BYTES = 512


def name_of(one_time_key: bytes) -> bytes:
    """Return the name in the store of the ask with this one-time public key: 32 bytes, however long the key is."""
    return hashlib.sha256(one_time_key).digest()


def register_of(rank: Rank, keys: GroupKeys) -> bytes:
    """Return the register that names an epoch."""
    register = _REGISTER.pack(_VERSION, rank.number, rank.public_key)
    return register + keys.register_tag(register)


def rank_in(register: bytes, keys: GroupKeys) -> Rank | None:
    """Return the rank that a register names; `NONE` if there is no register, None if no member made it."""
    if not register:
        return NONE
    body, tag = register[:-_TAG_BYTES], register[-_TAG_BYTES:]
    if len(body) != _REGISTER.size or body[0] != _VERSION or not keys.is_register_tag(body, tag):
        return None
    _, number, public_key = _REGISTER.unpack(body)
    return Rank(number, public_key)


@dataclass(frozen=True, slots=True)
class Who:
    """The process that asks, for the log of the one that serves it."""

    member: str
    """Random, and another one each time that a process joins."""
    host: str
    pid: int
    started: str
    """When the process started, in words."""

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}, started {self.started}"


@dataclass(frozen=True, slots=True)
class Ask:
    """A member's wish for a box with the epochs that it lacks."""

    one_time_key: bytes
    """The public key that the box is to be sealed to: 32 bytes (X25519), or 1,216 (X-Wing)."""
    seen: int
    """The number that the register had when the member asked."""
    has: int
    """The number of the newest epoch that the member holds."""
    who: Who

    @property
    def takes_xwing(self) -> bool:
        """Whether a box for this ask can hold X-Wing pairs."""
        return len(self.one_time_key) > 32

    def encoded(self, keys: GroupKeys) -> bytes:
        """Return the ask as the store keeps it."""
        who = json.dumps([self.who.member, self.who.host[:64], self.who.pid, self.who.started[:40]]).encode()
        length = len(self.one_time_key)
        head = _ASK_HEAD.pack(_VERSION, _KIND_OF_LENGTH[length], length)
        ask = head + self.one_time_key + _ASK_NUMBERS.pack(self.seen, self.has) + who
        return ask + keys.ask_tag(ask)

    @classmethod
    def decoded(cls, name: bytes, encoded: bytes, keys: GroupKeys) -> Self | None:
        """Return the ask; None if no member made it, or if this version cannot serve it."""
        ask, tag = encoded[:-_TAG_BYTES], encoded[-_TAG_BYTES:]
        if len(ask) < _ASK_HEAD.size or not keys.is_ask_tag(ask, tag):
            return None
        version, kind, length = _ASK_HEAD.unpack_from(ask)
        shortest = _ASK_HEAD.size + length + _ASK_NUMBERS.size
        if version != _VERSION or _KIND_OF_LENGTH.get(length) != kind:
            return None
        if not shortest < len(ask) <= shortest + _MOST_WHO_BYTES:
            return None
        one_time_key = ask[_ASK_HEAD.size : _ASK_HEAD.size + length]
        if name_of(one_time_key) != name:
            return None
        seen, has = _ASK_NUMBERS.unpack_from(ask, _ASK_HEAD.size + length)
        who = _who_in(ask[shortest:])
        return cls(one_time_key, seen, has, who) if who else None


def _who_in(encoded: bytes) -> Who | None:
    try:
        found: Any = json.loads(encoded)
        member, host, pid, started = found
    except (ValueError, TypeError):
        return None
    if not (isinstance(member, str) and isinstance(host, str) and isinstance(pid, int) and isinstance(started, str)):
        return None
    return Who(_printable(member), _printable(host), pid, _printable(started))


def _printable(text: str) -> str:
    """Return `text` without what would break a line of the log."""
    return "".join(character if character.isprintable() else "?" for character in text[:64])
