"""Many keys at once, computed eight in parallel: over the lanes of the processor, or over portable ones."""

import pytest

from tests.helpers.scripts import run_script

PREAMBLE = """
import warnings

from server_keys import KeyPair, engine, generate_key_pairs

def assert_right(pairs):
    peer = KeyPair.from_private_key(bytes(range(32)))
    for pair in pairs:
        assert pair.exchange(peer.public_key) == peer.exchange(pair.public_key)
    assert len({pair.public_key for pair in pairs}) == len(pairs)
"""


@pytest.mark.parametrize("engine", [None, "dalek", "portable-lanes"])
def test_every_count_of_keys_is_right_with_every_engine(engine: str | None) -> None:
    script = """
for count in (0, 1, 7, 8, 9, 31, 32, 33, 10_000):
    pairs = generate_key_pairs(count)
    assert len(pairs) == count
    assert_right(pairs)
"""
    run_script(PREAMBLE + script, environment={"SERVER_KEYS_ENGINE": engine} if engine else None)


def test_a_table_that_goes_wrong_switches_batches_to_dalek_with_one_warning() -> None:
    # The script flips a bit of the table in its own memory, as a fault of the machine would.
    script = """
import ctypes

from tests.helpers.process_memory import contents, mappings
import os

assert_right(generate_key_pairs(100))
assert engine().batches == "portable lanes, eight in parallel"

# The table begins with y + x of the base point (RFC 8032, section 5.1), of which the first limb has 51 bits.
p = 2**255 - 19
x = 15112221349535400772501151409588531511454012693041857206046113283949847762202
y = 46316835694926478169428394003475163141307993866256225615783033603165251855960
first_limb = ((x + y) % p % 2**51).to_bytes(8, "little")
places = [
    mapping.start + content.index(first_limb)
    for mapping, content in contents(os.getpid())
    if first_limb in content and mapping.permissions.startswith("rw")
]
# Where it is in this script's own objects, its neighbours are not fifteen other limbs.
tables = [
    place for place in places if place % 64 == 0
    and all(0 < limb < 2**51 for limb in (ctypes.c_uint64 * 16).from_address(place))
]
(table,) = tables
limbs = (ctypes.c_uint64 * 16).from_address(table)
for entry in range(16):
    limbs[entry] ^= 1

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    # One key of 256 is checked, so the chance that none is among these is e^-39.
    generate_key_pairs(10_000)
    for _ in range(3):
        assert_right(generate_key_pairs(1_000))
(warning,) = caught
assert warning.category is RuntimeWarning, warning
assert "another public key than x25519-dalek" in str(warning.message), warning
assert "eight in parallel" not in engine().batches, engine()
"""
    run_script(PREAMBLE + script, environment={"SERVER_KEYS_ENGINE": "portable-lanes"})
