"""The forms that a private key takes in memory while it is computed with."""


def clamped(private_key: bytes) -> bytes:
    """The scalar that X25519 makes of a private key (RFC 7748, section 5)."""
    return bytes([private_key[0] & 248]) + private_key[1:31] + bytes([private_key[31] & 127 | 64])


def radix_16_digits(scalar: bytes) -> list[int]:
    """The 64 digits from -8 to 8, lowest first, by which fixed-base multiplication looks up its table."""
    digits = [nibble for byte in scalar for nibble in (byte & 15, byte >> 4)]
    for index in range(63):
        carry = digits[index] + 8 >> 4
        digits[index] -= carry << 4
        digits[index + 1] += carry
    return digits


def traces(private_key: bytes) -> set[bytes]:
    """Pieces of the forms that a private key takes, each of 64 bits that do not occur by chance.

    These are the words in which it is loaded into registers, for multiples of the base point by s2n-bignum without its
    two highest bits, and as many of its digits.
    """
    digits = bytes(digit & 0xFF for digit in radix_16_digits(clamped(private_key)))
    forms = (private_key, clamped(private_key), private_key[:31] + bytes([private_key[31] & 63]))
    words = {form[start : start + 8] for form in forms for start in range(0, 32, 8)}
    return words | {digits[start : start + 16] for start in range(0, 64, 16)}


def traces_of_a_batch(private_key: bytes) -> set[bytes]:
    """The same while a batch takes digits of five bits from the top: what is left, in words."""
    scalar = int.from_bytes(clamped(private_key), "little")
    return {
        (scalar << taken >> place & 2**64 - 1).to_bytes(8, "little")
        for taken in range(0, 255, 5)
        for place in range(0, 256, 64)
        # The clamp sets three bits to zero, and zeros follow them.
        if place >= taken + 3
    }
