"""X25519 in plain Python: the Montgomery ladder of RFC 7748, section 5, as a yardstick for the native ones.

Not constant time, whatever it does: Python's integers are not. For measurements only.
"""

import os
from typing import Final

PRIME: Final = 2**255 - 19
BASE_POINT: Final = (9).to_bytes(32, "little")
_A24: Final = 121665


def x25519(scalar: bytes, u_coordinate: bytes) -> bytes:
    """Multiply a point of Curve25519 by a scalar.

    Args:
        scalar: 32 bytes, clamped here.
        u_coordinate: the point's u, 32 bytes; its highest bit is ignored.

    Returns:
        The product's u, 32 bytes.
    """
    k = _clamped(scalar)
    x_1 = int.from_bytes(u_coordinate, "little") & (2**255 - 1)
    x_2, z_2, x_3, z_3 = 1, 0, x_1, 1
    swapped = 0
    for position in reversed(range(255)):
        bit = k >> position & 1
        if bit != swapped:
            x_2, x_3 = x_3, x_2
            z_2, z_3 = z_3, z_2
        swapped = bit
        a, b = x_2 + z_2, x_2 - z_2
        aa, bb = a * a % PRIME, b * b % PRIME
        e = aa - bb
        da, cb = (x_3 - z_3) * a % PRIME, (x_3 + z_3) * b % PRIME
        x_3, z_3 = (da + cb) ** 2 % PRIME, x_1 * (da - cb) ** 2 % PRIME
        x_2, z_2 = aa * bb % PRIME, e * (aa + _A24 * e) % PRIME
    if swapped:
        x_2, z_2 = x_3, z_3
    return (x_2 * pow(z_2, PRIME - 2, PRIME) % PRIME).to_bytes(32, "little")


def generate_key_pair() -> tuple[bytes, bytes]:
    """Make a private key, 32 bytes, and its public key, 32 bytes."""
    private_key = os.urandom(32)
    return private_key, x25519(private_key, BASE_POINT)


def _clamped(scalar: bytes) -> int:
    return int.from_bytes(scalar, "little") & ~7 & (2**254 - 1) | 2**254
