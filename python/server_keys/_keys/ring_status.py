"""The status of a key ring: the state of its keys, and what others report of it."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from server_keys._keys.buffer_status import BufferStatus
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.identity_status import IdentityStatus
from server_keys._keys.pair_source import SharingStatus, SourceStatus, key_id


@dataclass(frozen=True, slots=True)
class KeyRingStatus:
    """The state of a ring, for health checks and metrics. It contains no secret."""

    key_id: str | None
    """The first 8 bytes of the current public key, in hex; None if there is no key."""
    age_s: float | None
    """Seconds since the current pair was made."""
    next_refresh_in_s: float | None
    """Seconds until the next refresh, or the next try after a failed one; 0 when it is due; None once closed."""
    previous_key_id: str | None
    """The key id of the pair that is still accepted beside the current one."""
    refreshes: int
    """How often the current pair was replaced."""
    failures: int
    """How many tries to replace it failed."""
    last_error: str | None
    """Why the last try failed; None when it succeeded."""
    closed: bool
    """Whether the ring was closed."""
    refusals: Mapping[str, int] = field(default_factory=dict, hash=False)
    """How many requests were refused, by reason: `key_mismatch`, `malformed`, `frame_too_large`, `wrong_place`,
    `plaintext`, `not_v1`, `keys_unavailable`, `key_path_method`, `key_not_signed`, `replayed`, `replay_table_full`,
    `replay_table_lost`, `replay_store_away`, `buffers_full` and `given_up` (memory)."""
    sharing: SharingStatus = field(default_factory=SharingStatus)
    """Whether other processes have the same keys."""
    identity: IdentityStatus | None = None
    """Who signs the published keys; None for a server without an identity."""
    buffers: BufferStatus | None = None
    """The memory that unfinished requests hold; None where nothing opens requests with this ring's keys."""


class RingReport:
    """What others report of a ring. Safe under threads."""

    def __init__(self) -> None:
        self.identity: Callable[[], IdentityStatus] | None = None
        """Returns the state of the identity that signs the published keys; None for a server without an identity."""
        self.buffers: Callable[[], BufferStatus] | None = None
        """Returns what unfinished requests hold; None where nothing opens requests with the ring's keys."""
        self._refusals: Counter[str] = Counter()
        self._lock = threading.RLock()
        renew_lock_after_fork(self)

    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused for `reason`."""
        with self._lock:
            self._refusals[reason] += 1

    def status(self, source: SourceStatus) -> KeyRingStatus:
        """Return the status of the ring, whose pairs come from a source in this state."""
        with self._lock:
            refusals = dict(self._refusals)
        return KeyRingStatus(
            key_id=key_id(source.current) if source.current else None,
            age_s=source.age_s,
            next_refresh_in_s=source.next_refresh_in_s,
            previous_key_id=key_id(source.previous) if source.previous else None,
            refreshes=source.refreshes,
            failures=source.failures,
            last_error=source.last_error,
            closed=source.closed,
            refusals=refusals,
            sharing=source.sharing,
            identity=self.identity() if self.identity else None,
            buffers=self.buffers() if self.buffers else None,
        )
