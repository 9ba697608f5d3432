"""The forms that secrets take in memory while they are hashed."""

import functools
import math
import operator
import struct
from collections.abc import Iterable


def words(secrets: Iterable[bytes]) -> set[bytes]:
    """Pieces of the forms that secrets take while they are hashed, each of 64 bits that do not occur by chance.

    These are the secret itself, and the same as a key of HMAC (RFC 2104, ipad and opad); and each of them in the words
    of SHA-256, which swap the bytes. There is one piece for each register of 128 bits.
    """
    keys = [bytes(byte ^ pad for byte in secret) for secret in secrets for pad in (0, 0x36, 0x5C)]
    pieces = {key[start : start + 8] for key in keys for start in range(0, len(key), 16)}
    return pieces | {piece[3::-1] + piece[:3:-1] for piece in pieces}


def hmac_states(keys: Iterable[bytes]) -> set[bytes]:
    """The first words of the two states of SHA-256 that HMAC makes of a key first. They are as good as the key."""
    states = [compressed(bytes(byte ^ pad for byte in key.ljust(64, b"\0"))) for key in keys for pad in (0x36, 0x5C)]
    # In the order of the state, and in that of the processor's own instructions, which have them in one register.
    return {struct.pack("<2I", *pair) for a, b, *_ in states for pair in ((a, b), (b, a))}


def compressed(block: bytes) -> tuple[int, ...]:
    """The state of SHA-256 after one block (FIPS 180-4, section 6.2.2)."""
    primes = [number for number in range(2, 312) if all(number % divisor for divisor in range(2, number))]
    first = [math.isqrt(prime << 64) & 0xFFFFFFFF for prime in primes[:8]]
    constants = [_cube_root(prime << 96) & 0xFFFFFFFF for prime in primes]

    def rotated(word: int, *counts: int) -> int:
        return functools.reduce(operator.xor, ((word >> count | word << 32 - count) & 0xFFFFFFFF for count in counts))

    words = list(struct.unpack(">16I", block))
    for index in range(16, 64):
        early, late = words[index - 15], words[index - 2]
        mixed = (rotated(early, 7, 18) ^ early >> 3) + (rotated(late, 17, 19) ^ late >> 10)
        words.append(words[index - 16] + mixed + words[index - 7] & 0xFFFFFFFF)
    a, b, c, d, e, f, g, h = first
    for constant, word in zip(constants, words, strict=True):
        added = h + rotated(e, 6, 11, 25) + (e & f ^ ~e & g) + constant + word
        mixed = rotated(a, 2, 13, 22) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = added + mixed & 0xFFFFFFFF, a, b, c, d + added & 0xFFFFFFFF, e, f, g
    return tuple(old + new & 0xFFFFFFFF for old, new in zip(first, (a, b, c, d, e, f, g, h), strict=True))


def _cube_root(number: int) -> int:
    root: int = round(number ** (1 / 3))
    while root**3 > number:
        root -= 1
    while (root + 1) ** 3 <= number:
        root += 1
    return root
