"""What the hosts of a group know together of the requests that each of them saw: a key in their store for each.

A request's key gets a token of whoever asks, unless it has one. The answer is the token that was there before. Asking
again after an answer that got lost finds one's own token, which is no replay.
"""

import asyncio
import contextlib
import hashlib
import secrets
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue

from server_keys._clock import boot_time
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
_STEP_S = 0.005
"""A request waits in steps. A step that takes longer does so because this process is busy, which says nothing of the
store: it counts as one all the same."""
_ANSWER_S = 0.25
"""How long a command waits for its answer at most. It is more than the deadline: where a process is busy, TLS takes its
time, and finds that a time has passed although the answer is there."""
_CONNECTING_S = 0.25
_TRIES = 2
_PROBES = 3
_LINES = 4
"""How many ask at the same time, over a connection each. Others wait for them, and are asked for together."""
_MOST_AT_ONCE = 64
_UNUSED_S = 10.0
"""A connection that was not used for so long is tried. Stores, and what lies before them, end those that are silent."""


@dataclass(slots=True, eq=False)
class _Asking:
    """A request that the store is asked about."""

    key: str
    keep_ms: int
    token: bytes = field(default_factory=lambda: secrets.token_bytes(_TOKEN_BYTES))
    is_first: Future[bool | None] = field(default_factory=Future)
    """None if there is no answer."""


class ValkeyReplays:
    """Asks a group's store whether another host saw a request.

    Requests wait for 20 ms at most, while the process is not busy. After a failure none asks any more, until the store
    has answered the thread that looks into it anyway, and within that time.

    Args:
        url: the server's address and how to log in.
    """

    def __init__(self, url: ValkeyUrl) -> None:
        self._url = url
        self._lock = threading.RLock()
        renew_lock_after_fork(self)
        self._lines: SimpleQueue[Connection] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._waiting: deque[_Asking] = deque()
        self._is_away = False
        self._is_closed = False
        self._tried_at = boot_time()
        self._policy: str | None = None
        self._policy_line: Connection | None = None

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
        asking = _Asking(key, max(int(keep_s * 1000), 1))
        self._waiting.append(asking)
        self._threads_to_ask().submit(self._ask_for_all)
        is_first = await self._answer(asking)
        if is_first is None:
            raise StoreAwayError(f"{self._url.shown} is away")
        return is_first

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
        """Find out whether a store answers again that was away, and keep the connections to one that answers.

        To be called by the thread that looks into it.
        """
        if not self._is_away:
            self._keep_connected()
            return
        with contextlib.suppress(StoreError):
            self._try_all_lines()
            with self._lock:
                if self._is_closed:
                    return
                self._is_away = False
            logger().info("%s answers again whether requests were seen", self._url.shown)

    def close(self) -> None:
        """Let go of the connections. Never raises."""
        with self._lock:
            threads, lines = self._threads, self._lines
            self._is_away = self._is_closed = True
            self._threads = self._lines = None
        if threads is not None and lines is not None:
            threads.shutdown(wait=False, cancel_futures=True)
            with contextlib.suppress(Empty):
                while True:
                    lines.get_nowait().close()

    def _threads_to_ask(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._is_closed:
                raise StoreAwayError(f"nobody asks {self._url.shown} any more: the ring is closed")
            if self._threads is None:
                self._lines = SimpleQueue()
                for _ in range(_LINES):
                    self._lines.put(Connection(self._url, _PREFIX, _ANSWER_S, connecting_s=_CONNECTING_S))
                self._threads = ThreadPoolExecutor(_LINES, "server_keys replays")
            return self._threads

    def _give_back(self, line: Connection) -> None:
        with self._lock:
            if self._lines is not None:
                return self._lines.put(line)
        line.close()

    def _try_all_lines(self) -> None:
        """Have each line get its connection.

        Raises:
            StoreError: there was no answer, or none within the time that requests wait, or nobody has asked yet.
        """
        lines = self._lines
        if lines is None:
            raise StoreError("nobody has asked yet")
        taken: list[Connection] = []
        try:
            with contextlib.suppress(Empty):
                while len(taken) < _LINES:
                    taken.append(lines.get(timeout=_CONNECTING_S))
            if not taken:
                raise StoreError(f"all connections to {self._url.shown} are in use")
            for line in taken:
                _try(line)
            self._tried_at = boot_time()
            # The first answer came with a connection. One that is slow once may be so because this process is busy.
            if min(_try(taken[0]) for _ in range(_PROBES)) > _DEADLINE_S:
                raise StoreError(f"{self._url.shown} did not answer within {_DEADLINE_S:g} s")
            self._look_at_policy(taken[0])
        finally:
            for line in taken:
                self._give_back(line)

    def _keep_connected(self) -> None:
        """Use each connection now and then, so that no request is the one that finds it ended."""
        lines = self._lines
        if lines is None or boot_time() < self._tried_at + _UNUSED_S:
            return
        self._tried_at = boot_time()
        # One after the other: requests take the others meanwhile.
        for _ in range(_LINES):
            if not self._is_away:
                with contextlib.suppress(Empty):  # all of them are in use
                    self._keep(lines.get_nowait())

    def _keep(self, line: Connection) -> None:
        try:
            try:
                _try(line)
            except StoreError:  # a connection that was ended without a word takes one try
                _try(line)
            self._look_at_policy(line)
        except StoreError as error:
            self._note_away(str(error))
        finally:
            self._give_back(line)

    def _look_at_policy(self, line: Connection) -> None:
        """Warn of a store that forgets when it is full, and takes more all the same."""
        # One line asks for all: whoever may not ask is denied once.
        self._policy_line = self._policy_line or line
        policy = line.eviction_policy() if line is self._policy_line else None
        if policy is not None and policy != self._policy:
            self._policy = policy
            logger().warning(
                "%s forgets keys when its memory is full (maxmemory-policy %s), and so which requests other hosts saw. "
                "Then they serve replays. Set maxmemory-policy noeviction there, and give it room",
                self._url.shown,
                policy,
            )

    async def _answer(self, asking: _Asking) -> bool | None:
        """Return the answer, or None if it does not come in time."""
        is_first = asyncio.wrap_future(asking.is_first)
        left_s = _DEADLINE_S
        while left_s > 0:
            await asyncio.wait([is_first], timeout=min(_STEP_S, left_s))
            if is_first.done():
                return is_first.result()
            if self._is_away:
                return None
            left_s -= _STEP_S
        self._note_away(f"{self._url.shown} did not answer within {_DEADLINE_S:g} s")
        return None

    def _ask_for_all(self) -> None:
        """Ask about all requests that wait, at once: a busy process has little time for each of them."""
        lines = self._lines
        if lines is None:  # it is closed
            return
        try:
            line = lines.get(timeout=_CONNECTING_S)
        except Empty:  # it is closed at this moment
            return
        try:
            asked: list[_Asking] = []
            with contextlib.suppress(IndexError):
                while len(asked) < _MOST_AT_ONCE:
                    asked.append(self._waiting.popleft())
            if asked:
                for asking, is_first in zip(asked, self._asked(line, asked), strict=True):
                    asking.is_first.set_result(is_first)
        finally:
            self._give_back(line)

    def _asked(self, line: Connection, asked: Sequence[_Asking]) -> Sequence[bool | None]:
        """Return the answers. If none comes, ask again with the same tokens, which finds one's own command."""
        keys = [asking.key for asking in asked]
        arguments = [argument for asking in asked for argument in (asking.token, asking.keep_ms)]
        why = ""
        for _ in range(_TRIES):
            if self._is_away:
                break
            try:
                before = line.run(scripts.SEE, keys, arguments)
            except StoreError as error:
                why = str(error)
                continue
            if isinstance(before, list) and len(before) == len(asked):
                return [found is None or found == asking.token for found, asking in zip(before, asked, strict=True)]
            why = f"{self._url.shown} answered with what the script does not return"
        else:
            self._note_away(why)
        return [None] * len(asked)

    def _note_away(self, why: str) -> None:
        with self._lock:
            is_news, self._is_away = not self._is_away, True
        if is_news:
            logger().warning("cannot ask whether other hosts saw a request: %s", why)


def _try(line: Connection) -> float:
    """Ask about no request. Return how many seconds the answer took."""
    began_at = boot_time()
    line.run(scripts.SEE, [_PREFIX + "probe"], (b"probe", 1000))
    return boot_time() - began_at
