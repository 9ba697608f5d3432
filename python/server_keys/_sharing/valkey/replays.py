"""What the hosts of a group know together of the requests that each of them saw: a key in their store for each.

A request's key gets a token of whoever asks, unless it has one. The answer is the token that was there before. Asking
again after an answer that got lost finds one's own token, which is no replay.
"""

import asyncio
import contextlib
import hashlib
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.replays import StoreAwayError
from server_keys._log import logger
from server_keys._sharing.store import StoreError
from server_keys._sharing.valkey import scripts
from server_keys._sharing.valkey.connection import Connection
from server_keys._sharing.valkey_url import ValkeyUrl

# All keys are in one slot of a cluster, so that one connection leads to all of them.
_PREFIX = "server-keys:{seen}:"
_TOKEN_BYTES = 16
_DEADLINE_S = 0.02
"""How long a request waits for the store."""
_ANSWER_S = 0.009
"""How long a command waits for its answer: another one fits into the deadline then."""
_CONNECTING_S = 0.25
_LINES = 4
"""How many ask at the same time, over a connection each. Others wait for them."""


class ValkeyReplays:
    """Asks a group's store whether another host saw a request.

    Requests wait for 20 ms at most. After a failure none asks any more, until the store has answered the thread that
    looks into it anyway.

    Args:
        url: the server's address and how to log in.
    """

    def __init__(self, url: ValkeyUrl) -> None:
        self._url = url
        self._lock = threading.RLock()
        renew_lock_after_fork(self)
        self._lines: SimpleQueue[Connection] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._is_away = False

    async def is_first(self, public_key: bytes, request_id: bytes, keep_s: float) -> bool:
        """Remember a request everywhere. Return whether it is the first one of its id.

        Args:
            public_key: the X25519 key of the epoch that it is sealed to.
            request_id: what identifies it among those that are sealed to this epoch.
            keep_s: seconds for which the epoch lives, at most.

        Raises:
            StoreAwayError: the store did not answer.
        """
        if self._is_away:
            raise StoreAwayError(f"{self._url.shown} is away")
        key = _PREFIX + hashlib.sha256(public_key + request_id).hexdigest()[:32]
        until = time.monotonic() + _DEADLINE_S
        asking = self._threads_to_ask().submit(self._ask, key, max(int(keep_s * 1000), 1), until)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(asking), _DEADLINE_S)
        except TimeoutError:
            self._note_away(f"{self._url.shown} did not answer within {_DEADLINE_S:g} s")
        except StoreError as error:
            self._note_away(str(error))
        raise StoreAwayError(f"{self._url.shown} is away")

    def connect(self) -> None:
        """Make the connections, so that no request has to wait for them. A store that does not answer is away."""
        if self._is_away:
            return
        self._threads_to_ask()
        try:
            self._try_all_lines()
        except StoreError as error:
            self._note_away(str(error))

    def look_after(self) -> None:
        """Find out whether a store answers again that was away. To be called by the thread that looks into it."""
        if not self._is_away:
            return
        with contextlib.suppress(StoreError):
            self._try_all_lines()
            self._is_away = False
            logger().info("%s answers again whether requests were seen", self._url.shown)

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        with self._lock:
            threads, lines = self._threads, self._lines
            self._is_away = True
            self._threads = self._lines = None
        if threads is not None and lines is not None:
            threads.shutdown(wait=False, cancel_futures=True)
            while not lines.empty():
                lines.get().close()

    def _threads_to_ask(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._lines = SimpleQueue()
                for _ in range(_LINES):
                    self._lines.put(Connection(self._url, _PREFIX, _ANSWER_S, connecting_s=_CONNECTING_S))
                self._threads = ThreadPoolExecutor(_LINES, "server_keys replays")
            return self._threads

    def _try_all_lines(self) -> None:
        """Have each line get its connection.

        Raises:
            StoreError: there was no answer, or nobody has asked yet.
        """
        lines = self._lines
        if lines is None:
            raise StoreError("nobody has asked yet")
        taken = [lines.get() for _ in range(_LINES)]
        try:
            for line in taken:
                line.run(scripts.SEE, [_PREFIX + "probe"], (b"probe", 1000))
        finally:
            for line in taken:
                lines.put(line)

    def _ask(self, key: str, keep_ms: int, until: float) -> bool:
        """Ask, and ask again with the same token if the answer does not come.

        Raises:
            StoreError: there was no answer.
        """
        token = secrets.token_bytes(_TOKEN_BYTES)
        lines = self._lines
        if lines is None or time.monotonic() >= until:
            raise StoreError("others were asking for too long")
        line = lines.get()
        try:
            while True:
                try:
                    before = line.run(scripts.SEE, [key], (token, keep_ms))
                except StoreError:
                    if time.monotonic() >= until:
                        raise
                else:
                    return before is None or before == token
        finally:
            lines.put(line)

    def _note_away(self, why: str) -> None:
        with self._lock:
            is_news, self._is_away = not self._is_away, True
        if is_news:
            logger().warning("cannot ask whether other hosts saw a request: %s", why)
