"""A process that works with a private key which its test knows, so that the test can search its memory for traces."""

import contextlib
import os
import textwrap
from collections.abc import Iterator

from tests.helpers.process_memory import Victim, victim_of

PREAMBLE = """
import os, sys

from server_keys import KeyPair, KeyRing, generate_key_pairs
from server_keys._native import (
    GroupKeys, RequestOpener, RequestOpenerV1, RequestSealer, RequestSealerV1, XWingKeyPair, open_box, seal_boxes
)
from tests.helpers.process_memory import reached

def from_known_private_key(make=KeyPair.from_private_key):
    # Into memory that can be wiped: immutable bytes could not.
    private_key = bytearray(32)
    assert os.readv(int(sys.argv[1]), [private_key]) == 32
    try:
        return make(private_key)
    finally:
        private_key[:] = bytes(32)

def from_known_seed():
    return from_known_private_key(XWingKeyPair.from_seed)

def far_down(work, levels=100):
    # Through C functions, which deepen the stack: what `work` leaves there, later calls do not overwrite by chance.
    return work() if levels == 0 else next(map(far_down, [work], [levels - 1]))
"""


@contextlib.contextmanager
def victim(script: str, *arguments: str, private_key: bytes = b"") -> Iterator[Victim]:
    """Run a script whose `from_known_private_key()` gets `private_key`, and whose arguments begin at `sys.argv[2]`.

    `from_known_seed()` makes an X-Wing pair of the same bytes.
    """
    key_reader, key_writer = os.pipe()
    try:
        os.write(key_writer, private_key)
        source = PREAMBLE + textwrap.dedent(script)
        with victim_of(source, str(key_reader), *arguments, pass_fds=[key_reader]) as process:
            yield process
    finally:
        os.close(key_reader)
        os.close(key_writer)
