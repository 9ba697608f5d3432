"""The store in Valkey or Redis. Redis 7 is the oldest that it works with."""

import math
from collections.abc import Mapping
from typing import NoReturn

from server_keys._sharing.store import CrowdedStoreError, Look, StoreError, Taken
from server_keys._sharing.valkey import scripts
from server_keys._sharing.valkey.connection import Connection
from server_keys._sharing.valkey.failures import WrongTypeError
from server_keys._sharing.valkey.scripts import Script
from server_keys._sharing.valkey_url import ValkeyUrl

DEFAULT_TIMEOUT_S = 0.25


class ValkeyStore:
    """The store of one group in a Valkey or Redis server, or in a cluster of them.

    Its four keys begin with `server-keys:{` and 16 hex digits of the group's id. All of them go by themselves. Several
    threads may use it, one at a time.

    Args:
        url: the server's address and how to log in.
        group_id: what tells this group's keys from others'; at least 8 bytes.
        timeout_s: seconds that the server may take to accept a connection, and again to answer a command. Nothing is
            tried twice.

    Raises:
        ValueError: the URL names a file of certificates that cannot be read.
    """

    def __init__(self, url: ValkeyUrl, group_id: bytes, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        tag = f"server-keys:{{{group_id[:8].hex()}}}"
        self._keys = [f"{tag}:{name}" for name in ("reg", "asks", "waiting", "boxes")]
        self._connection = Connection(url, self._keys[0], timeout_s)

    @property
    def shown(self) -> str:
        """The server's URL without credentials."""
        return self._connection.shown

    def look(self, name: bytes) -> Look:
        """Return what is there for the member called `name`."""
        match self._run(scripts.LOOK, name):
            case [bytes() as register, int() as asks, int() as waiting, int() as mine, int() as time_ms]:
                return Look(register, asks, waiting, mine == 1, time_ms)
        self._answered_nonsense()

    def commit(self, expected: bytes, register: bytes, boxes: Mapping[bytes, bytes], keep_s: float) -> bool:
        """Put `register` and `boxes` there, all or nothing, if the register is still `expected`."""
        flat = [part for name_and_box in boxes.items() for part in name_and_box]
        return self._run(scripts.COMMIT, expected, register, _milliseconds(keep_s), *flat) == 1

    def restore(self, expected: bytes, register: bytes, keep_s: float) -> bool:
        """Put `register` there, and nothing else, if it is still `expected`."""
        return self._run(scripts.RESTORE, expected, register, _milliseconds(keep_s)) == 1

    def ask(self, name: bytes, ask: bytes, *, waits: bool, keep_s: float) -> None:
        """Put an ask there."""
        self._unless_crowded(self._run(scripts.ASK, name, ask, int(waits), _milliseconds(keep_s)))

    def asks(self) -> dict[bytes, bytes]:
        """Return all asks by their names."""
        return self._by_name(self._run(scripts.ASKS))

    def waiting(self) -> dict[bytes, bytes]:
        """Return the asks of those who wait."""
        return self._by_name(self._run(scripts.WAITING))

    def serve(self, name: bytes, box: bytes, keep_s: float) -> bool:
        """Put a box there unless there is one, and let its member wait no longer."""
        return self._run(scripts.SERVE, name, box, _milliseconds(keep_s)) == 1

    def take(self, name: bytes) -> Taken | None:
        """Take the box and the ask called `name` out of the store."""
        match self._run(scripts.TAKE, name):
            case None:
                return None
            case [bytes() as box, int() as time_ms]:
                return Taken(box, time_ms)
        self._answered_nonsense()

    def leave(self, name: bytes) -> None:
        """Take the ask called `name` out of the store, and its box."""
        self._run(scripts.LEAVE, name)

    def forget_asks(self) -> None:
        """Remove all asks."""
        self._run(scripts.FORGET_ASKS)

    def close(self) -> None:
        """Close the connection. Never raises."""
        self._connection.close()

    def _run(self, script: Script, *arguments: bytes | int) -> object:
        try:
            return self._connection.run(script, self._keys, arguments)
        except WrongTypeError:
            self._connection.run(scripts.REMOVE_OTHER_TYPES, self._keys, ())
            raise

    def _by_name(self, answer: object) -> dict[bytes, bytes]:
        self._unless_crowded(answer)
        if not isinstance(answer, list) or len(answer) % 2 or not all(isinstance(part, bytes) for part in answer):
            self._answered_nonsense()
        return dict(zip(answer[::2], answer[1::2], strict=True))

    def _unless_crowded(self, answer: object) -> None:
        if answer == scripts.CROWDED:
            raise CrowdedStoreError(f"{self.shown} holds more asks than a group can have")

    def _answered_nonsense(self) -> NoReturn:
        raise StoreError(f"{self.shown} answered with what none of the scripts returns")


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1000))
