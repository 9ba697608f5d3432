"""Where a key ring has its pairs from: this process alone, or a group of processes."""

from dataclasses import dataclass, field
from typing import Protocol

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.replays import SeenRequests
from server_keys._native import KeyPair


@dataclass(frozen=True, slots=True)
class SharingStatus:
    """Whether a ring is shared with other processes, for health checks and metrics."""

    shared: bool = False
    """Whether the current pair is the group's."""
    why_not: str | None = None
    """Why the ring has pairs of its own: what keeps the process from sharing at the moment, or for good."""
    store: str | None = None
    """The place through which the group shares, without credentials; None for a process that joined no group."""
    epoch: int | None = None
    """The number of the newest epoch that the process holds."""
    members: int | None = None
    """How many processes share the ring. One that was killed counts for up to a key's lifetime more."""
    last_contact_s: float | None = None
    """Seconds since the process last reached the store."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """The state of a source of pairs. It contains no secret."""

    current: KeyPair | None
    age_s: float | None
    next_refresh_in_s: float | None
    previous: KeyPair | None
    refreshes: int
    failures: int
    last_error: str | None
    closed: bool
    sharing: SharingStatus = field(default_factory=SharingStatus)


class PairSource(Protocol):
    """A source of key pairs, safe under threads. `KeyRing` documents what each method promises."""

    is_shared: bool
    """Whether others have these pairs, too."""

    @property
    def accepted(self) -> tuple[EpochPairs, ...]:
        """The pairs that a peer may still use, by epoch. The first of those that are published is the current one."""

    @property
    def current(self) -> EpochPairs:
        """The pairs that are published."""

    @property
    def current_accepted_for_s(self) -> float:
        """Seconds for which the current pair is accepted from now on, even if it is replaced at once."""

    @property
    def current_ends_in_s(self) -> float:
        """Seconds after which nobody accepts the current pair any more, even if it is not replaced."""

    def refresh(self) -> None:
        """Replace the current pair."""

    def refresh_if_due(self, period_s: float | None = None) -> None:
        """Replace the current pair if its time has come. Never raises."""

    def next_event_in_s(self, period_s: float | None = None) -> float | None:
        """Seconds until `refresh_if_due` has something to do; None once closed."""

    def seen_requests(self, pairs: EpochPairs) -> SeenRequests:
        """Return the requests that are sealed to an epoch.

        Raises:
            ReplayTableError: it is not known which were seen, or there is no memory for them.
        """

    async def is_first_everywhere(self, pairs: EpochPairs, request_id: bytes) -> bool:
        """Remember a request wherever the pairs are accepted. Return whether it is the first one of its id.

        Raises:
            StoreAwayError: others could not be asked.
        """

    async def connect_everywhere(self) -> None:
        """Connect to whoever `is_first_everywhere` asks, so that no request waits for that. Never raises."""

    async def ready(self) -> None:
        """Wait until there is a current pair."""

    async def has_news(self) -> bool:
        """Find out whether others made a pair that is not accepted here yet. Then it is accepted."""

    @property
    def status(self) -> SourceStatus:
        """The state, for health checks and metrics. Reading it changes nothing."""

    def close(self) -> None:
        """Erase every pair, and hand out nothing afterwards."""


def key_id(pair: KeyPair) -> str:
    """Return what operators call a pair: the first 8 bytes of its public key, in hex."""
    return pair.public_key[:8].hex()
