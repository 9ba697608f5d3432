"""The requests that were seen, by the epoch that they are sealed to, so that none is served twice."""

import threading
from collections import deque
from collections.abc import Callable

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._native import ReplayTable, ReplayTableError, ReplayTableLostError

# A group holds four epochs at most, so one of these may come back that was erased here alone.
_FORGOTTEN_EPOCHS = 8


class StoreAwayError(Exception):
    """The store could not be asked which requests other hosts saw."""


class SeenRequests:
    """The requests that are sealed to one epoch. Safe under threads.

    Args:
        table: holds their ids; None where there is none. Then nobody knows which requests were seen, and none is taken.
    """

    def __init__(self, table: ReplayTable | None) -> None:
        self.is_retired: bool = table is None
        """Whether the epoch is to end soon after there is another one."""
        self._table = table
        self._half = 0 if table is None else table.capacity / 2
        self._is_half_full = False

    def add(self, request_id: bytes) -> bool:
        """Remember a request. Return whether it is the first one of its id.

        Args:
            request_id: from 8 to 32 bytes.

        Raises:
            ReplayTableFullError: it is new, and there is no room for it.
            ReplayTableLostError: nobody knows which requests were seen.
        """
        table = self._require_table()
        try:
            return table.add(request_id)
        except ReplayTableLostError:
            self.lose()
            raise

    def check(self) -> None:
        """Check that it is known which requests were seen.

        Raises:
            ReplayTableLostError: it is not.
        """
        try:
            self._require_table().require()
        except ReplayTableLostError:
            self.lose()
            raise

    def lose(self) -> None:
        """Take no request any more."""
        self._table, self.is_retired = None, True

    @property
    def is_lost(self) -> bool:
        """Whether no request is taken any more."""
        return self._table is None

    def fills(self) -> bool:
        """Return True once: when half of the room is taken."""
        table = self._table
        if self._is_half_full or table is None or table.used < self._half:
            return False
        self._is_half_full = True
        return True

    def _require_table(self) -> ReplayTable:
        table = self._table
        if table is None:
            raise ReplayTableLostError("nobody knows which requests were sealed to this key and seen already")
        return table


class OwnReplays:
    """The requests that this process saw, by epoch. They are forgotten with its pairs.

    A member of a group may get pairs again that somebody erased in this process alone. Then none of their requests is
    taken any more.

    Args:
        new_table: makes an empty table.
    """

    def __init__(self, new_table: Callable[[], ReplayTable] = ReplayTable) -> None:
        self._new_table = new_table
        self._seen: dict[bytes, tuple[EpochPairs, SeenRequests]] = {}
        self._forgotten: deque[bytes] = deque(maxlen=_FORGOTTEN_EPOCHS)
        self._lock = threading.RLock()
        renew_lock_after_fork(self)

    def of(self, pairs: EpochPairs) -> SeenRequests:
        """Return the requests that are sealed to an epoch.

        Raises:
            ReplayTableError: its pairs are erased, so its requests may be forgotten; or there is no memory for them, or
                the random source failed.
        """
        name = pairs.x25519.public_key
        found = self._seen.get(name)
        if found is not None:
            return found[1]
        with self._lock:
            if name not in self._seen:
                # A long first frame may be opened while the pair ends. If its table is gone, it may be a replay.
                if pairs.erased or name in self._forgotten:
                    raise ReplayTableLostError("the key is erased, and the requests that were sealed to it forgotten")
                try:
                    table = self._new_table()
                except (MemoryError, RuntimeError) as error:
                    raise ReplayTableError(f"no request can be remembered: {error}") from error
                self._seen[name] = (pairs, SeenRequests(table))
            return self._seen[name][1]

    def forget_erased(self) -> None:
        """Forget the requests that were sealed to pairs which are erased."""
        with self._lock:
            for name, (pairs, _) in tuple(self._seen.items()):
                if pairs.erased:
                    self._forgotten.append(name)
                    del self._seen[name]
