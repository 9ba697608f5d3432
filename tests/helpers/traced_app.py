"""The app of `trial_app.py`, in a process whose private keys a test may know: it searches memory for them.

Each is written to the file `TRIAL_FOLDER/private` when it is made: its kind, the time, a name, and the private key or
the seed. The name of an X25519 pair is its public key, and that of an X-Wing pair the hash of it. Nothing of a private
key stays in memory that the package does not keep there.
"""

import hashlib
import os
import struct
from collections.abc import Callable
from typing import Any

from server_keys import KeyPair
from server_keys._clock import boot_time
from server_keys._native import XWingKeyPair
from server_keys._sharing import door, pair_maker
from tests.helpers import trial_app
from tests.helpers.trials import EPOCH, ONE_TIME, X25519_ONE_TIME, XWING_EPOCH

_file = os.open(trial_app.FOLDER / "private", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


class _Known:
    """Stands in for `KeyPair` and `XWingKeyPair` where key pairs are made."""

    def __init__(self, kind: bytes, make: Callable[[bytearray], Any]) -> None:
        self._kind = kind
        self._make = make

    def generate(self) -> Any:
        # Into memory that can be wiped: immutable bytes could not.
        private_key = bytearray(32)
        random = os.open("/dev/urandom", os.O_RDONLY)
        try:
            assert os.readv(random, [private_key]) == 32
            pair = self._make(private_key)
            public_key = pair.public_key
            name = public_key if len(public_key) == 32 else hashlib.sha256(public_key).digest()
            # What a struct packs would stay in memory as a whole.
            os.writev(_file, [self._kind, struct.pack(">d", boot_time()), name, private_key])
        finally:
            private_key[:] = bytes(32)
            os.close(random)
        return pair


def _trace() -> None:
    defaults: Any = pair_maker.PairMaker.__init__.__kwdefaults__
    defaults["generate"] = _Known(EPOCH, KeyPair.from_private_key).generate
    defaults["generate_xwing"] = _Known(XWING_EPOCH, XWingKeyPair.from_seed).generate
    doors: Any = door
    doors.XWingKeyPair = _Known(ONE_TIME, XWingKeyPair.from_seed)
    doors.KeyPair = _Known(X25519_ONE_TIME, KeyPair.from_private_key)


_trace()
app = trial_app.app
