"""Messages as an attacker would change them, for parsers that must refuse them."""

import random

# Made by a machine, so it need not be unpredictable: a failure must come again.
RANDOM = random.Random(20_261_127)


def changed(whole: bytes) -> bytes:
    """Change a message in one of the ways in which an attacker would."""
    start, end = sorted(RANDOM.randrange(len(whole) + 1) for _ in range(2))
    match RANDOM.randrange(7):
        case 0:
            return whole[:start] + RANDOM.randbytes(end - start) + whole[end:]
        case 1:
            return whole[:start] + whole[end:]
        case 2:
            return whole[:end] + whole[start:]
        case 3:
            return whole[:start] + RANDOM.randbytes(RANDOM.randrange(40)) + whole[start:]
        case 4:
            return RANDOM.randbytes(RANDOM.randrange(100))
        case 5:
            return whole[:start] + RANDOM.randrange(2**32).to_bytes(4, "big") + whole[start + 4 :]
        case _:
            index = RANDOM.randrange(len(whole))
            return whole[:index] + bytes([whole[index] ^ 1 << RANDOM.randrange(8)]) + whole[index + 1 :]
