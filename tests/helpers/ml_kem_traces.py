"""The forms that ML-KEM-768's private key takes in memory: its key generation (FIPS 203), in the open and slowly."""

import functools
import hashlib
import struct

PRIME = 3329
_RANK = 3
_ZETAS = [pow(17, int(f"{index:07b}"[::-1], 2), PRIME) for index in range(128)]

Polynomial = list[int]


def generated(seed: bytes) -> tuple[bytes, list[bytes], list[Polynomial], list[Polynomial]]:
    """Make the key of a seed of 32 bytes, K-PKE.KeyGen (algorithm 13).

    Returns:
        The encapsulation key, the bytes that the secret polynomials are drawn from, and these polynomials, before and
        after their transformation.
    """
    public_seed, secret_seed = _halves(hashlib.sha3_512(seed + bytes([_RANK])).digest())
    drawn = [hashlib.shake_256(secret_seed + bytes([number])).digest(128) for number in range(2 * _RANK)]
    secret = [_small(one) for one in drawn[:_RANK]]
    transformed = [_transformed(one) for one in secret]
    errors = [_transformed(_small(one)) for one in drawn[_RANK:]]
    rows = []
    for row in range(_RANK):
        products = [
            _multiplied(_uniform(public_seed + bytes([column, row])), transformed[column]) for column in range(_RANK)
        ]
        rows.append([sum(column) % PRIME for column in zip(*products, errors[row], strict=True)])
    return b"".join(map(packed, rows)) + public_seed, [secret_seed, *drawn[:_RANK]], secret, transformed


def traces(seed: bytes) -> set[bytes]:
    """Pieces of the forms that the private key of a seed takes, none of which occurs by chance.

    These are words of the seed and of what is drawn from it, and coefficients of the secret polynomials: packed, in 16
    bits each, and before the transformation, where they are small, more of them.
    """
    _, drawn, secret, transformed = generated(seed)
    pieces = {one[start : start + 8] for one in [seed, *drawn] for start in (0, 8, 16, 24)}
    for small, large in zip(secret, transformed, strict=True):
        for start in (0, 64, 192):
            pieces.add(packed(large)[start : start + 12])
            pieces.add(struct.pack("<24h", *small[start : start + 24]))
            pieces.add(struct.pack("<24h", *(number % PRIME for number in small[start : start + 24])))
            pieces.add(struct.pack("<8h", *large[start : start + 8]))
            centred = [number - PRIME if number > PRIME // 2 else number for number in large[start : start + 8]]
            pieces.add(struct.pack("<8h", *centred))
    return pieces


def packed(polynomial: Polynomial) -> bytes:
    """Write a polynomial with 12 bits a coefficient."""
    return sum(number << 12 * index for index, number in enumerate(polynomial)).to_bytes(384, "little")


def _halves(both: bytes) -> tuple[bytes, bytes]:
    return both[:32], both[32:]


def _small(drawn: bytes) -> Polynomial:
    """SamplePolyCBD (algorithm 8)."""
    bits = int.from_bytes(drawn, "little")

    def count(position: int) -> int:
        return (bits >> position & 1) + (bits >> position + 1 & 1)

    return [count(4 * index) - count(4 * index + 2) for index in range(256)]


@functools.cache
def _uniform(seed: bytes) -> tuple[int, ...]:
    """SampleNTT (algorithm 7)."""
    numbers: list[int] = []
    stream = hashlib.shake_128(seed).digest(3 * 500)
    for start in range(0, len(stream), 3):
        three = int.from_bytes(stream[start : start + 3], "little")
        numbers += [number for number in (three & 0xFFF, three >> 12) if number < PRIME]
    return tuple(numbers[:256])


def _transformed(polynomial: Polynomial) -> Polynomial:
    """NTT (algorithm 9)."""
    numbers, zetas, length = list(polynomial), iter(_ZETAS[1:]), 128
    while length >= 2:
        for start in range(0, 256, 2 * length):
            zeta = next(zetas)
            for index in range(start, start + length):
                turned = zeta * numbers[index + length]
                numbers[index + length] = (numbers[index] - turned) % PRIME
                numbers[index] = (numbers[index] + turned) % PRIME
        length //= 2
    return numbers


def _multiplied(first: tuple[int, ...], second: Polynomial) -> Polynomial:
    """MultiplyNTTs (algorithm 11)."""
    product: Polynomial = []
    for pair in range(128):
        zeta = pow(17, 2 * int(f"{pair:07b}"[::-1], 2) + 1, PRIME)
        (a, b), (c, d) = first[2 * pair : 2 * pair + 2], second[2 * pair : 2 * pair + 2]
        product += [(a * c + b * d * zeta) % PRIME, (a * d + b * c) % PRIME]
    return product
