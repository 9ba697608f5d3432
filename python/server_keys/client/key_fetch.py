"""One request for a server's key, and everybody who waits for its result."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from server_keys._native import XWingPublicKey
from server_keys._sealing.key_entries import PublishedKeys


class XWingReceiver(NamedTuple):
    """A server's X-Wing key, ready for many requests, and the id by which they name it."""

    key_id: int
    public_key: XWingPublicKey


class Key(NamedTuple):
    """What a server published in one answer. Times are in seconds, on the clock of the cache.

    `keys` has no X-Wing key if the user's checks cannot see it, and then `xwing` is None, too.
    """

    keys: PublishedKeys
    xwing: XWingReceiver | None
    asked_at: float
    renewed_from: float
    fresh_until: float


class KeyFetch:
    """A fetch that one exchange carries out and others wait for, in any thread and on any event loop.

    Args:
        number: a fetch that begins later has a greater number.
        began_at: when it began, in seconds on the cache's clock.
        past_caches: whether caches on the way must ask the server.
    """

    def __init__(self, number: int, began_at: float, *, past_caches: bool) -> None:
        self.number = number
        self.began_at = began_at
        self.past_caches = past_caches
        self.key: Key | None = None
        self._lock = threading.Lock()
        self.has_ended: bool = False
        self._wakers: list[Callable[[], None]] = []

    def end(self, key: Key | None) -> None:
        """Give `key` to all who wait. None means that the fetch failed, so that each of them asks again."""
        with self._lock:
            self.key = key
            self.has_ended = True
            wakers, self._wakers = self._wakers, []
        for wake in wakers:
            wake()

    def wait(self, timeout_s: float) -> Key | None:
        """Wait for the end in a thread. Return None if the fetch failed or is not over after `timeout_s` seconds."""
        ended = threading.Event()
        self._when_ended(ended.set)
        ended.wait(timeout_s)
        return self.key

    async def wait_async(self, timeout_s: float) -> Key | None:
        """Wait for the end on asyncio's event loop, as `wait` does.

        Other event loops, such as Trio's, cannot be woken from here: on them this returns at once.
        """
        import asyncio

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return self.key
        ended = asyncio.Event()

        def wake() -> None:
            with suppress(RuntimeError):  # that loop is closed, so nobody waits there any more
                loop.call_soon_threadsafe(ended.set)

        self._when_ended(wake)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        return self.key

    def _when_ended(self, wake: Callable[[], None]) -> None:
        with self._lock:
            if not self.has_ended:
                self._wakers.append(wake)
                return
        wake()
