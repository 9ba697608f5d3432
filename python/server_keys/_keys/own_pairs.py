"""The key pairs of one process: the current one, and the one before it while it is still accepted."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from server_keys._clock import boot_time
from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.pair_source import SharingStatus, SourceStatus, key_id
from server_keys._keys.replays import OwnReplays, SeenRequests
from server_keys._keys.retries import Retries
from server_keys._keys.schedule import Schedule
from server_keys._log import logger
from server_keys.errors import KeysUnavailableError


@dataclass(frozen=True, slots=True)
class _Pairs:
    """One state of the ring, swapped as a whole."""

    current: EpochPairs
    made_at: float
    previous: EpochPairs | None
    previous_until: float

    @property
    def accepted(self) -> tuple[EpochPairs, ...]:
        return (self.current,) if self.previous is None else (self.current, self.previous)


class OwnPairs:
    """The pairs of a process that shares them with nobody: what `KeyRing` documents.

    Args:
        schedule: how long pairs live.
        generate: makes the pairs of an epoch.
        clock: tells the time in seconds; it must never go backwards.
        why_not_shared: what the status says.
    """

    is_shared = False

    def __init__(
        self,
        schedule: Schedule,
        *,
        generate: Callable[[], EpochPairs] = EpochPairs.generate,
        clock: Callable[[], float] = boot_time,
        why_not_shared: str | None = None,
    ) -> None:
        self._sharing = SharingStatus(why_not=why_not_shared)
        self._schedule = schedule
        self._generate = generate
        self._clock = clock
        # Reentrant: a signal handler may look at the ring while its own thread refreshes it.
        self._lock = threading.RLock()
        self._refreshes = 0
        self._retries = Retries()
        self._replays = OwnReplays()
        self._pairs: _Pairs | None = _Pairs(self._new_pairs(), clock(), None, 0.0)
        renew_lock_after_fork(self)

    @property
    def current(self) -> EpochPairs:
        """The newest pairs, made less than `period_s` ago unless refreshes fail."""
        return self._fresh_pairs().current

    @property
    def accepted(self) -> tuple[EpochPairs, ...]:
        """The pairs that a peer may still use, newest first."""
        return self._fresh_pairs().accepted

    @property
    def current_accepted_for_s(self) -> float:
        """Seconds for which the current pair is accepted from now on, even if it is replaced at once."""
        over_at = self._schedule.over_at(self._fresh_pairs().made_at)
        return min(self._schedule.overlap_s, max(over_at - self._clock(), 0.0))

    @property
    def current_ends_in_s(self) -> float:
        """Seconds after which nobody accepts the current pair any more, even if it is not replaced."""
        return max(self._schedule.over_at(self._fresh_pairs().made_at) - self._clock(), 0.0)

    def refresh(self) -> None:
        """Replace the current pair now. Its predecessor is erased at once."""
        with self._lock:
            self._open_pairs()
            try:
                new = self._new_pairs()
            except Exception as error:
                self._note_failure(error)
                raise
            now = self._clock()
            # A signal handler may close or refresh the ring at any time, in this very thread: then start over.
            while True:
                pairs = self._open_pairs()
                previous_until = self._schedule.accepted_until(pairs.made_at, now)
                keep = previous_until > now and not pairs.current.erased
                replacement = _Pairs(new, now, pairs.current if keep else None, previous_until)
                if self._pairs is pairs:
                    self._pairs = replacement
                    break
            self._refreshes += 1
            self._retries.succeeded()
            if pairs.previous is not None:
                pairs.previous.erase()
            if keep:
                self._erase_in(pairs.current, previous_until - now)
            else:
                pairs.current.erase()
        self._replays.forget_erased()
        logger().debug("key %s replaced key %s", key_id(new.x25519), key_id(pairs.current.x25519))

    def refresh_if_due(self, period_s: float | None = None) -> None:
        """Replace the current pair if it is due, and erase every pair whose time is over. Never raises."""
        with self._lock:
            if self._pairs is None:
                return
            now = self._clock()
            if now >= self._refresh_at(self._pairs, period_s):
                try:
                    self.refresh()
                except Exception:  # noqa: BLE001 - logged and counted by refresh(), tried again after the back-off
                    now = self._clock()
            pairs = self._pairs
            if pairs is not None and pairs.previous is not None and now >= pairs.previous_until:
                self._pairs = _Pairs(pairs.current, pairs.made_at, None, 0.0)
                pairs.previous.erase()
            if pairs is not None and now >= self._schedule.over_at(pairs.made_at):
                pairs.current.erase()
            for epoch in pairs.accepted if pairs is not None else ():
                if epoch.erased:  # Somebody erased one of its pairs.
                    epoch.erase()
            self._replays.forget_erased()

    def next_event_in_s(self, period_s: float | None = None) -> float | None:
        """Seconds until `refresh_if_due(period_s)` has something to do; None once closed."""
        with self._lock:
            pairs = self._pairs
            if pairs is None:
                return None
            at = self._refresh_at(pairs, period_s)
            if pairs.previous is not None:
                at = min(at, pairs.previous_until)
            if self._retries.in_a_row and not pairs.current.erased:
                at = min(at, self._schedule.over_at(pairs.made_at))
            return max(at - self._clock(), 0.0)

    def seen_requests(self, pairs: EpochPairs) -> SeenRequests:
        """Return the requests that are sealed to an epoch."""
        return self._replays.of(pairs)

    async def is_first_everywhere(self, pairs: EpochPairs, request_id: bytes) -> bool:
        """Return True: nobody else has these pairs."""
        return True

    async def connect_everywhere(self) -> None:
        """Return at once: there is nobody to ask."""

    async def ready(self) -> None:
        """Return at once: the first pair was made with this object."""

    async def has_news(self) -> bool:
        """Return False: nobody else makes pairs."""
        return False

    @property
    def status(self) -> SourceStatus:
        """The state, for health checks and metrics. Reading it changes nothing."""
        with self._lock:
            pairs = self._pairs
            now = self._clock()
            return SourceStatus(
                current=pairs.current.x25519 if pairs and not pairs.current.erased else None,
                age_s=now - pairs.made_at if pairs else None,
                next_refresh_in_s=max(self._refresh_at(pairs) - now, 0.0) if pairs else None,
                previous=pairs.previous.x25519 if pairs and pairs.previous and now < pairs.previous_until else None,
                refreshes=self._refreshes,
                failures=self._retries.total,
                last_error=self._retries.last_error,
                closed=pairs is None,
                sharing=self._sharing,
            )

    def close(self) -> None:
        """Erase every pair. The ring hands out nothing afterwards. Closing twice is fine."""
        with self._lock:
            pairs, self._pairs = self._pairs, None
        if pairs is not None:
            for pair in pairs.accepted:
                pair.erase()
        self._replays.forget_erased()

    def _new_pairs(self) -> EpochPairs:
        pairs = self._generate()
        self._erase_in(pairs, self._schedule.period_s + self._schedule.overlap_s)
        return pairs

    def _erase_in(self, pairs: EpochPairs, delay_s: float) -> None:
        if self._clock is boot_time:
            pairs.erase_in(delay_s)

    def _fresh_pairs(self) -> _Pairs:
        pairs = self._pairs
        # No lock while nothing is due: reading an attribute is atomic, and _Pairs is immutable.
        if pairs is None or pairs.current.erased or self._clock() >= self._next_change(pairs):
            self.refresh_if_due()
            with self._lock:
                pairs = self._open_pairs()
                # If no refresh failed, the period is so short that the new pair's time is over already. Hand it out.
                if pairs.current.erased and self._retries.in_a_row:
                    raise KeysUnavailableError(self._why_unavailable())
        return pairs

    def _open_pairs(self) -> _Pairs:
        if self._pairs is None:
            raise KeysUnavailableError("this key ring is closed and its keys are erased: its app has shut down")
        return self._pairs

    def _refresh_at(self, pairs: _Pairs, period_s: float | None = None) -> float:
        # A current pair is erased in a forked child, or because somebody called its erase().
        due_at = pairs.made_at if pairs.current.erased else self._schedule.replaced_at(pairs.made_at, period_s)
        return self._retries.allowed_at(due_at)

    def _next_change(self, pairs: _Pairs) -> float:
        due_at = self._schedule.replaced_at(pairs.made_at)
        return due_at if pairs.previous is None else min(due_at, pairs.previous_until)

    def _note_failure(self, error: Exception) -> None:
        delay_s = self._retries.failed(error, self._clock())
        logger().warning(
            "key refresh failed (%d in a row), next try in %.1f s: %s",
            self._retries.in_a_row,
            delay_s,
            self._retries.last_error,
        )

    def _why_unavailable(self) -> str:
        wait_s = max(self._retries.not_before - self._clock(), 0.0)
        return (
            f"no fresh key pair could be made, and the last one is over: {self._retries.in_a_row} tries failed, "
            f"the last with {self._retries.last_error}; next try in {wait_s:.1f} s"
        )
