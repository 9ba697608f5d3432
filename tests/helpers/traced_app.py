"""The app of `trial_app.py`, in a process whose private keys a test may know: it searches memory for them.

Each is written to the file `TRIAL_FOLDER/private` when it is made, with the time, the public key, and whether it is an
epoch's or a one-time key. Nothing of it stays in memory that the package does not keep there.
"""

import os
import struct
from typing import Any

from server_keys import KeyPair
from server_keys._clock import boot_time
from server_keys._sharing import door, member
from tests.helpers import trial_app
from tests.helpers.trials import EPOCH, ONE_TIME

_file = os.open(trial_app.FOLDER / "private", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class _Known:
    """Stands in for `KeyPair` where key pairs are made."""

    def __init__(self, kind: bytes) -> None:
        self._kind = kind

    def generate(self) -> KeyPair:
        # Into memory that can be wiped: immutable bytes could not.
        private_key = bytearray(32)
        random = os.open("/dev/urandom", os.O_RDONLY)
        try:
            assert os.readv(random, [private_key]) == 32
            pair = KeyPair.from_private_key(private_key)
            # What a struct packs would stay in memory as a whole.
            os.writev(_file, [self._kind, struct.pack(">d", boot_time()), pair.public_key, private_key])
        finally:
            private_key[:] = bytes(32)
            os.close(random)
        return pair


def _trace() -> None:
    defaults: Any = member.Member.__init__.__kwdefaults__
    defaults["generate"] = _Known(EPOCH).generate
    door.KeyPair = _Known(ONE_TIME)  # type: ignore[assignment, attr-defined]


_trace()
app = trial_app.app
