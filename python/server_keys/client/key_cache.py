"""The servers' public keys, for as long as the servers allow."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import NamedTuple


class _Entry(NamedTuple):
    public_key: bytes
    fresh_until: float
    ticket: int


class KeyCache:
    """Public keys by server. Safe under threads.

    Each fetch draws a ticket before it begins. Its key is kept only if no fetch that began later was kept before. So a
    slow answer from before a rotation does not replace the one from after it, even if that one was refused since.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._last_ticket = 0

    def get(self, server: str) -> bytes | None:
        """Return the key of `server` (32 bytes) while it may be used."""
        with self._lock:
            entry = self._entries.get(server)
        return entry.public_key if entry is not None and self._clock() < entry.fresh_until else None

    def draw_ticket(self) -> tuple[int, float]:
        """Return a ticket for a fetch that begins now, and the time."""
        with self._lock:
            self._last_ticket += 1
            return self._last_ticket, self._clock()

    def put(self, server: str, public_key: bytes, lifetime_s: float, ticket: tuple[int, float]) -> None:
        """Keep a key for `lifetime_s` seconds from when its fetch began."""
        number, began_at = ticket
        with self._lock:
            known = self._entries.get(server)
            if known is None or known.ticket < number:
                self._entries[server] = _Entry(public_key, began_at + lifetime_s, number)

    def discard(self, server: str, public_key: bytes) -> None:
        """Use the key of `server` no longer, if it is still this one."""
        with self._lock:
            entry = self._entries.get(server)
            if entry is not None and entry.public_key == public_key:
                self._entries[server] = entry._replace(fresh_until=-math.inf)
