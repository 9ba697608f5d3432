"""The key pairs of one server process: the current one, and the one before it while it is still accepted."""

import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from server_keys._native import KeyPair
from server_keys.durations import overlap_seconds, positive_seconds

_logger = logging.getLogger("server_keys")

# After a failed refresh: the first delay before the next try, and the longest.
_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 5.0


class KeysUnavailableError(RuntimeError):
    """The ring has no key pair to hand out: it is closed, or refreshes have failed for too long."""


@dataclass(frozen=True, slots=True)
class KeyRingStatus:
    """What a health check or a metric may know of a ring. Contains no secret."""

    key_id: str | None
    """The first 8 bytes of the current public key in hex; None when there is no key."""
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


@dataclass(frozen=True, slots=True)
class _Pairs:
    """One state of the ring, swapped as a whole."""

    current: KeyPair
    made_at: float
    previous: KeyPair | None
    previous_until: float

    @property
    def accepted(self) -> tuple[KeyPair, ...]:
        return (self.current,) if self.previous is None else (self.current, self.previous)


def boot_time() -> float:
    """Seconds on a clock that goes on while the machine sleeps, where the system has one (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class KeyRing:
    """X25519 key pairs that replace each other. Safe under threads; a reader sees the old state or the new one.

    A pair is `current` for `period_s`, then stays in `accepted` for `overlap_s`, then is erased: no private key is
    handed out longer than both together. An overdue pair is replaced by whoever asks for it first, so a blocked event
    loop or a machine that slept cannot make the ring hand out a stale one. A refresh that fails leaves the ring as it
    was, is logged and counted, and tried again after a capped back-off with jitter.

    Somebody has to call `refresh_if_due()` at the times that `next_event_in_s()` tells, or pairs are replaced and
    erased only when the ring is used: `server_keys.periodic_refresh` and the lifespans do.

    Args:
        period_s: seconds until a pair is replaced.
        overlap_s: seconds for which a replaced pair is still accepted, from 0 to `period_s`; `period_s` by default.
        generate: makes a key pair.
        clock: tells the time in seconds; it must never go backwards.

    Raises:
        TypeError: a duration is not a number.
        ValueError: a duration is not finite or out of its range.
        EntropyError: the first pair could not be made.
    """

    def __init__(
        self,
        period_s: float,
        *,
        overlap_s: float | None = None,
        generate: Callable[[], KeyPair] = KeyPair.generate,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        self._period_s = positive_seconds("period_s", period_s)
        self._overlap_s = overlap_seconds("overlap_s", overlap_s, self._period_s)
        self._generate = generate
        self._clock = clock
        # Reentrant: a signal handler may look at the ring while its own thread refreshes it.
        self._lock = threading.RLock()
        self._refreshes = 0
        self._failures = 0
        self._failures_in_a_row = 0
        self._last_error: str | None = None
        self._retry_at = 0.0
        self._pairs: _Pairs | None = _Pairs(generate(), clock(), None, 0.0)
        _rings.add(self)

    @property
    def period_s(self) -> float:
        """Seconds until a pair is replaced."""
        return self._period_s

    @property
    def overlap_s(self) -> float:
        """Seconds for which a replaced pair is still accepted."""
        return self._overlap_s

    @property
    def current(self) -> KeyPair:
        """The newest pair, made less than `period_s` ago unless refreshes fail.

        Raises:
            KeysUnavailableError: the ring is closed, or refreshes have failed until the pair's time was over.
        """
        return self._fresh_pairs().current

    @property
    def accepted(self) -> tuple[KeyPair, ...]:
        """The pairs that a peer may still use, newest first: the current one, and its predecessor for `overlap_s`.

        Raises:
            KeysUnavailableError: as for `current`.
        """
        return self._fresh_pairs().accepted

    @property
    def current_accepted_for_s(self) -> float:
        """Seconds for which the current pair is accepted from now on, even if it is replaced by its schedule at once.

        Raises:
            KeysUnavailableError: as for `current`.
        """
        end = self._end_of(self._fresh_pairs())
        return min(self._overlap_s, max(end - self._clock(), 0.0))

    def refresh(self) -> None:
        """Replace the current pair now. The one before it stays accepted; the one before that is erased at once.

        Raises:
            KeysUnavailableError: the ring is closed.
            Exception: whatever stopped the generation (`EntropyError`, `MemoryError`); the ring is as it was.
        """
        with self._lock:
            self._open_pairs()
            try:
                new = self._generate()
            except Exception as error:
                self._note_failure(error)
                raise
            now = self._clock()
            # A signal handler may close or refresh the ring at any time, in this very thread: then this starts over.
            while True:
                pairs = self._open_pairs()
                # After a time without refreshes the replaced pair is older than its period: its end stays where it was.
                previous_until = min(now, pairs.made_at + self._period_s) + self._overlap_s
                keep = previous_until > now and not pairs.current.erased
                replacement = _Pairs(new, now, pairs.current if keep else None, previous_until)
                if self._pairs is pairs:
                    self._pairs = replacement
                    break
            self._refreshes += 1
            self._failures_in_a_row = 0
            self._last_error = None
            if pairs.previous is not None:
                pairs.previous.erase()
            if not keep:
                pairs.current.erase()
        _logger.debug("key %s replaced key %s", _key_id(new), _key_id(pairs.current))

    def refresh_if_due(self, period_s: float | None = None) -> None:
        """Replace the current pair if its time has come, and erase those whose time is over. Never raises.

        Args:
            period_s: replace a pair of this age already, if that is sooner than the ring's own period.
        """
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
            if pairs is not None and now >= self._end_of(pairs):
                pairs.current.erase()

    def next_event_in_s(self, period_s: float | None = None) -> float | None:
        """Seconds until `refresh_if_due(period_s)` has something to do; None once closed."""
        with self._lock:
            if self._pairs is None:
                return None
            at = self._refresh_at(self._pairs, period_s)
            if self._pairs.previous is not None:
                at = min(at, self._pairs.previous_until)
            if not self._pairs.current.erased and self._failures_in_a_row:
                at = min(at, self._end_of(self._pairs))
            return max(at - self._clock(), 0.0)

    @property
    def status(self) -> KeyRingStatus:
        """What a health check or a metric may know. Reading it changes nothing."""
        with self._lock:
            pairs = self._pairs
            now = self._clock()
            previous = pairs.previous if pairs and now < pairs.previous_until else None
            return KeyRingStatus(
                key_id=_key_id(pairs.current) if pairs and not pairs.current.erased else None,
                age_s=now - pairs.made_at if pairs else None,
                next_refresh_in_s=max(self._refresh_at(pairs) - now, 0.0) if pairs else None,
                previous_key_id=_key_id(previous) if previous else None,
                refreshes=self._refreshes,
                failures=self._failures,
                last_error=self._last_error,
                closed=pairs is None,
            )

    def close(self) -> None:
        """Erase every pair. The ring hands out nothing afterwards. Closing twice is fine."""
        with self._lock:
            pairs, self._pairs = self._pairs, None
        if pairs is not None:
            for pair in pairs.accepted:
                pair.erase()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        pairs = self._pairs
        held = "closed" if pairs is None else f"current {pairs.current!r}"
        return f"<KeyRing period {self._period_s:g} s, overlap {self._overlap_s:g} s, {held}>"

    def _fresh_pairs(self) -> _Pairs:
        pairs = self._pairs
        # Without the lock as long as nothing is due: attribute reads are atomic, and _Pairs is immutable.
        if pairs is None or self._clock() >= self._next_change(pairs) or pairs.current.erased:
            self.refresh_if_due()
            with self._lock:
                pairs = self._open_pairs()
                if pairs.current.erased:
                    raise KeysUnavailableError(self._why_unavailable())
        return pairs

    def _open_pairs(self) -> _Pairs:
        if self._pairs is None:
            raise KeysUnavailableError("this key ring is closed and its keys are erased: its app has shut down")
        return self._pairs

    def _refresh_at(self, pairs: _Pairs, period_s: float | None = None) -> float:
        due_at = pairs.made_at + (self._period_s if period_s is None else min(period_s, self._period_s))
        if pairs.current.erased:  # in a forked child, or by somebody's own erase()
            due_at = pairs.made_at
        return max(due_at, self._retry_at) if self._failures_in_a_row else due_at

    def _next_change(self, pairs: _Pairs) -> float:
        due_at = pairs.made_at + self._period_s
        return due_at if pairs.previous is None else min(due_at, pairs.previous_until)

    def _end_of(self, pairs: _Pairs) -> float:
        return pairs.made_at + self._period_s + self._overlap_s

    def _note_failure(self, error: Exception) -> None:
        self._failures += 1
        self._failures_in_a_row += 1
        self._last_error = f"{type(error).__name__}: {error}"
        delay_s = min(_FIRST_RETRY_S * 2 ** min(self._failures_in_a_row - 1, 16), _LONGEST_RETRY_S)
        # Jitter, so that the processes of one machine do not retry in step.
        delay_s *= random.uniform(0.5, 1.0)  # noqa: S311 - no secret, and it must work while the random source does not
        self._retry_at = self._clock() + delay_s
        _logger.warning(
            "key refresh failed (%d in a row), next try in %.1f s: %s",
            self._failures_in_a_row,
            delay_s,
            self._last_error,
        )

    def _why_unavailable(self) -> str:
        wait_s = max(self._retry_at - self._clock(), 0.0)
        return (
            f"no fresh key pair could be made, and the last one is over: {self._failures_in_a_row} tries failed, "
            f"the last with {self._last_error}; next try in {wait_s:.1f} s"
        )


def _key_id(pair: KeyPair) -> str:
    return pair.public_key[:8].hex()


_rings: weakref.WeakSet[KeyRing] = weakref.WeakSet()


def _renew_locks() -> None:
    """Give a forked child locks of its own: a thread that held one is not there to release it."""
    for ring in _rings:
        ring._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
