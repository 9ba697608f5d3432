"""The key ring: what apps, handlers and the middleware see of a server's key pairs."""

import threading
from collections.abc import Callable
from typing import Self

from server_keys._checks import overlap_seconds, period_seconds
from server_keys._clock import boot_time
from server_keys._keys.buffer_status import BufferStatus
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.identity_status import IdentityStatus
from server_keys._keys.own_pairs import OwnPairs
from server_keys._keys.pair_source import PairSource
from server_keys._keys.remembering import remember
from server_keys._keys.ring_status import KeyRingStatus, RingReport
from server_keys._keys.schedule import Schedule
from server_keys._native import KeyPair


class KeyRing:
    """X25519 key pairs that replace each other. Safe under threads: a reader sees the old state or the new one.

    A pair is `current` for `period_s`, then stays in `accepted` for `overlap_s`, then is erased. So no private key is
    handed out for longer than both together. A pair that is overdue is replaced when somebody asks for it, so neither a
    blocked event loop nor a machine that slept makes the ring hand out a stale one. A refresh that fails leaves the
    ring as it was. It is logged, counted, and tried again after a capped back-off with jitter.

    With each X25519 pair the ring has an X-Wing pair, to which clients of this package seal (version 1 of the wire). It
    lives and ends with the X25519 pair.

    The ring does not refresh itself. Call `refresh_if_due()` when `next_event_in_s()` says so; otherwise pairs are
    replaced only when the ring is read. `server_keys.periodic_refresh` and the lifespans do that. A pair whose time is
    over is erased on time all the same, by a thread that no blocked event loop holds up.

    Args:
        period_s: seconds until a pair is replaced, from 0.01 to 31622400 (366 days).
        overlap_s: seconds for which a replaced pair is still accepted, from 0 to `period_s`; `period_s` by default.
        generate: makes a key pair. With another function than the default the ring has X25519 pairs only: then clients
            seal by plain EHBP.
        clock: tells the time in seconds; it must never go backwards. The thread that erases pairs on time goes by the
            default clock only: with another one, they are erased when `refresh_if_due()` is called or the ring is read.

    Raises:
        TypeError: a duration is not a number.
        ValueError: a duration is out of its range.
        EntropyError: the first pair could not be made.
        RuntimeError: the system refused the thread that erases pairs on time.
    """

    def __init__(
        self,
        period_s: float,
        *,
        overlap_s: float | None = None,
        generate: Callable[[], KeyPair] = KeyPair.generate,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        period_s = period_seconds("period_s", period_s)
        schedule = Schedule(period_s, overlap_seconds("overlap_s", overlap_s, period_s))
        generate_pairs = EpochPairs.generate if generate is KeyPair.generate else lambda: EpochPairs(generate())
        self._take_pairs_from(OwnPairs(schedule, generate=generate_pairs, clock=clock), schedule)

    @classmethod
    def over(cls, source: PairSource, schedule: Schedule) -> Self:
        """Return a ring that has its pairs from `source`.

        Args:
            source: what makes the pairs: this process, or a group of processes.
            schedule: how long each of them lives.

        Returns:
            The ring. It closes `source` when it is closed.
        """
        ring = cls.__new__(cls)
        ring._take_pairs_from(source, schedule)
        return ring

    def _take_pairs_from(self, source: PairSource, schedule: Schedule) -> None:
        self._source = source
        self._schedule = schedule
        self._report = RingReport()
        self._watchers: list[Callable[[KeyRing], None]] = []
        self._lock = threading.RLock()
        renew_lock_after_fork(self)

    @property
    def period_s(self) -> float:
        """Seconds until a pair is replaced."""
        return self._schedule.period_s

    @property
    def overlap_s(self) -> float:
        """Seconds for which a replaced pair is still accepted."""
        return self._schedule.overlap_s

    @property
    def current(self) -> KeyPair:
        """The newest pair that is published, less than `period_s` old unless refreshes fail.

        Raises:
            KeysUnavailableError: the ring is closed, or refreshes have failed until the pair's time was over.
        """
        return self._source.current.x25519

    @property
    def accepted(self) -> tuple[KeyPair, ...]:
        """The pairs that a peer may still use: first the current one, then its predecessor for `overlap_s`.

        In a shared ring, the pair that the group will publish next is accepted already.

        Raises:
            KeysUnavailableError: as for `current`.
        """
        return tuple(pairs.x25519 for pairs in self._source.accepted)

    @property
    def current_pairs(self) -> EpochPairs:
        """All pairs of the current epoch, which are published together.

        Raises:
            KeysUnavailableError: as for `current`.
        """
        return self._source.current

    @property
    def accepted_pairs(self) -> tuple[EpochPairs, ...]:
        """All pairs that a peer may still use, by epoch, in the order of `accepted`.

        Raises:
            KeysUnavailableError: as for `current`.
        """
        return self._source.accepted

    @property
    def current_accepted_for_s(self) -> float:
        """Seconds for which the current pair is accepted from now on, even if it is replaced at once.

        The lifetime of the published key is computed from this.

        Raises:
            KeysUnavailableError: as for `current`.
        """
        return self._source.current_accepted_for_s

    @property
    def current_ends_in_s(self) -> float:
        """Seconds after which nobody accepts the current pair any more, even if nothing replaces it.

        The lifetime of a signature of the published key is computed from this.

        Raises:
            KeysUnavailableError: as for `current`.
        """
        return self._source.current_ends_in_s

    def refresh(self) -> None:
        """Replace the current pair now. It stays accepted for the overlap; its predecessor is erased at once.

        In a shared ring this brings the group's next pair forward: it is published a second or two later, when every
        process had time to fetch it, and its predecessors live on until their time is over.

        Raises:
            KeysUnavailableError: the ring is closed.
            Exception: whatever stopped the generation (`EntropyError`, `MemoryError`); the ring is as it was.
        """
        self._source.refresh()
        self._tell_watchers()

    def refresh_if_due(self, period_s: float | None = None) -> None:
        """Replace the current pair if it is due, and erase every pair whose time is over. Never raises.

        Args:
            period_s: replace a pair of this age already, if that is sooner than the ring's own period.
        """
        self._source.refresh_if_due(period_s)
        self._tell_watchers()

    def next_event_in_s(self, period_s: float | None = None) -> float | None:
        """Return when `refresh_if_due(period_s)` has something to do.

        Args:
            period_s: as for `refresh_if_due`.

        Returns:
            Seconds from now on; None once the ring is closed.
        """
        return self._source.next_event_in_s(period_s)

    @property
    def is_shared(self) -> bool:
        """Whether the ring has its pairs from a group. `status.sharing` tells whether it has them at the moment."""
        return self._source.is_shared

    async def ready(self) -> None:
        """Wait until the ring has a current pair. One that is shared may need a second to join its group."""
        await self._source.ready()

    async def has_news(self) -> bool:
        """Look for a pair that the ring's group made and this process does not have yet.

        The middleware asks this before it refuses a request that opens under no accepted pair.

        Returns:
            True if there was one. It is accepted from now on.
        """
        return await self._source.has_news()

    def remember(self, pairs: EpochPairs, request_id: bytes) -> bool:
        """Remember a request for as long as the pairs are accepted to which it is sealed, and forget it with them.

        When half of the room for requests is taken, the next pairs are made early.

        Args:
            pairs: the epoch that the request is sealed to.
            request_id: what identifies the request, from 8 to 32 bytes.

        Returns:
            Whether it is the first one of its id. Of all threads, and of all processes of the host that share the ring,
            exactly one is told so.

        Raises:
            ReplayTableFullError: it is new, and there is no room for it.
            ReplayTableError: it is not known which requests were seen, here or by other processes of the host.
        """
        return remember(self._source, pairs, request_id, refresh=self.refresh)

    async def remember_everywhere(self, pairs: EpochPairs, request_id: bytes) -> bool:
        """Do as `remember`, and ask the group's store as well, if it is one for many hosts.

        Args:
            pairs: the epoch that the request is sealed to.
            request_id: what identifies the request, from 8 to 32 bytes.

        Returns:
            Whether it is the first one of its id, wherever the pairs are accepted.

        Raises:
            StoreAwayError: it is the first one on this host, and the store could not be asked.
            ReplayTableError: as for `remember`.
        """
        return self.remember(pairs, request_id) and await self._source.is_first_everywhere(pairs, request_id)

    async def connect_everywhere(self) -> None:
        """Connect to the store that `remember_everywhere` asks, so that no request waits for that. Never raises."""
        await self._source.connect_everywhere()

    @property
    def status(self) -> KeyRingStatus:
        """The state of the ring, for health checks and metrics. Reading it changes nothing."""
        return self._report.status(self._source.status)

    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused, for `status`.

        Args:
            reason: its kind, of which there are few: nothing that a client chooses.
        """
        self._report.count_refusal(reason)

    def tell_of_identity(self, status: Callable[[], IdentityStatus]) -> None:
        """Let `status` say what this ring's status tells of the identity that signs its published keys.

        Args:
            status: returns the state of the identity; called each time that the ring's status is read.
        """
        self._report.identity = status

    def tell_of_buffers(self, status: Callable[[], BufferStatus]) -> None:
        """Let `status` say what this ring's status tells of the memory that unfinished requests hold.

        Args:
            status: returns what they hold; called each time that the ring's status is read.
        """
        self._report.buffers = status

    def watch(self, watcher: Callable[["KeyRing"], None]) -> None:
        """Call `watcher` with this ring now, after each refresh or look whether one is due, and when the ring closes.

        While a key lifespan runs, that is once a second at least. A watcher that was given before is not added again.

        Args:
            watcher: must be quick and must not raise: the task that refreshes the ring calls it.
        """
        with self._lock:
            if watcher in self._watchers:
                return
            self._watchers.append(watcher)
        watcher(self)

    def _tell_watchers(self) -> None:
        for watcher in tuple(self._watchers):
            watcher(self)

    def close(self) -> None:
        """Erase every pair. The ring hands out nothing afterwards. Closing twice is fine."""
        self._source.close()
        self._tell_watchers()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        status = self._source.status
        held = "closed" if status.closed else f"current {status.current!r}"
        return f"<KeyRing period {self.period_s:g} s, overlap {self.overlap_s:g} s, {held}>"
