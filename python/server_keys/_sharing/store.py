"""What the members of a group ask of their store. Two stores do it: a directory, and Valkey.

A store keeps a register, which names the newest epoch; the asks of the members, each under the hash of its one-time
key; which of them wait to be served now; and the boxes, each for one ask. It understands nothing of what it keeps.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

MOST_ASKS = 4096
"""A store with more asks than this was filled by somebody who is no member."""
MOST_REGISTER_BYTES = 256
MOST_ASK_BYTES = 2048
MOST_BOX_BYTES = 16 * 1024
"""Longer entries are no member's: a store hands none of them out."""


class StoreError(Exception):
    """The store cannot be used at the moment. The message says why, without credentials."""


class StoreRefusedError(StoreError):
    """The store does not let this member in, or not do what it must do, until somebody changes that."""


class CrowdedStoreError(StoreError):
    """The store holds more asks than a group can have."""


class Look(NamedTuple):
    """What one look into the store finds."""

    register: bytes
    """Empty if there is none."""
    asks: int
    """How many members have an ask there."""
    waiting: int
    """How many of them wait to be served."""
    has_mine: bool
    """Whether the ask of the member that looks is there."""
    time_ms: int
    """The store's time. Its zero means nothing."""


class Taken(NamedTuple):
    """A box, which is out of the store now."""

    box: bytes
    time_ms: int
    """The store's time when it was taken."""


class Store(Protocol):
    """The store of one group. Every method raises StoreError when the store cannot be used."""

    @property
    def shown(self) -> str:
        """The store's name for logs, without credentials."""

    def look(self, name: bytes) -> Look:
        """Return what is there for the member whose ask is called `name`. Every poll begins with this."""

    def commit(self, expected: bytes, register: bytes, boxes: Mapping[bytes, bytes], keep_s: float) -> bool:
        """Put `register` and `boxes` there, all or nothing, if the register is still `expected`.

        The boxes that were there go, nobody waits any more, and asks that are older than `keep_s` go. What is put
        there goes by itself after `keep_s`, at the latest with the next commit.

        Returns:
            Whether it happened. After an error it may have happened or not.
        """

    def restore(self, expected: bytes, register: bytes, keep_s: float) -> bool:
        """Put `register` there, and nothing else, if it is still `expected`. Returns whether it happened."""

    def ask(self, name: bytes, ask: bytes, *, waits: bool, keep_s: float) -> None:
        """Put an ask there; with `waits`, its member is also one of those who wait.

        Raises:
            CrowdedStoreError: there are `MOST_ASKS` already.
        """

    def asks(self) -> dict[bytes, bytes]:
        """Return all asks by their names, without those of more than `MOST_ASK_BYTES`.

        Raises:
            CrowdedStoreError: there are more than `MOST_ASKS`. None was read.
        """

    def waiting(self) -> dict[bytes, bytes]:
        """Return the asks of those who wait, as `asks` does."""

    def serve(self, name: bytes, box: bytes, keep_s: float) -> bool:
        """Put a box there unless there is one, and let its member wait no longer. Returns whether this box was put."""

    def take(self, name: bytes) -> Taken | None:
        """Take the box and the ask called `name` out of the store; None if there is no box."""

    def leave(self, name: bytes) -> None:
        """Take the ask called `name` out of the store, and its box, because its member ends."""

    def forget_asks(self) -> None:
        """Remove all asks. Members notice and ask again."""

    def close(self) -> None:
        """Let go of connections and descriptors. Never raises."""
