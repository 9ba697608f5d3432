"""The key pairs of one server process: the current one, and the one before it while it is still accepted."""

import os
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Self

from server_keys._checks import overlap_seconds, period_seconds
from server_keys._clock import boot_time
from server_keys._keys.retries import Retries
from server_keys._keys.schedule import Schedule
from server_keys._log import logger
from server_keys._native import KeyPair, erase_in
from server_keys.errors import KeysUnavailableError


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
    """How many requests were refused, by reason: `key_mismatch`, `malformed`, `frame_too_large`, `plaintext`,
    `keys_unavailable`, `key_path_method`."""


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


class KeyRing:
    """X25519 key pairs that replace each other. Safe under threads: a reader sees the old state or the new one.

    A pair is `current` for `period_s`, then stays in `accepted` for `overlap_s`, then is erased. So no private key is
    handed out for longer than both together. A pair that is overdue is replaced when somebody asks for it, so neither a
    blocked event loop nor a machine that slept makes the ring hand out a stale one. A refresh that fails leaves the
    ring as it was. It is logged, counted, and tried again after a capped back-off with jitter.

    The ring does not refresh itself. Call `refresh_if_due()` when `next_event_in_s()` says so; otherwise pairs are
    replaced only when the ring is read. `server_keys.periodic_refresh` and the lifespans do that. A pair whose time is
    over is erased on time all the same, by a thread that no blocked event loop holds up.

    Args:
        period_s: seconds until a pair is replaced, from 0.01 to 31622400 (366 days).
        overlap_s: seconds for which a replaced pair is still accepted, from 0 to `period_s`; `period_s` by default.
        generate: makes a key pair.
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
        self._schedule = Schedule(period_s, overlap_seconds("overlap_s", overlap_s, period_s))
        self._generate = generate
        self._clock = clock
        # Reentrant: a signal handler may look at the ring while its own thread refreshes it.
        self._lock = threading.RLock()
        self._refreshes = 0
        self._retries = Retries()
        self._refusals: Counter[str] = Counter()
        self._pairs: _Pairs | None = _Pairs(self._new_pair(), clock(), None, 0.0)
        _rings.add(self)

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
        """Seconds for which the current pair is accepted from now on, even if it is replaced at once.

        The lifetime of the published key is computed from this.

        Raises:
            KeysUnavailableError: as for `current`.
        """
        over_at = self._schedule.over_at(self._fresh_pairs().made_at)
        return min(self.overlap_s, max(over_at - self._clock(), 0.0))

    def refresh(self) -> None:
        """Replace the current pair now. It stays accepted for the overlap; its predecessor is erased at once.

        Raises:
            KeysUnavailableError: the ring is closed.
            Exception: whatever stopped the generation (`EntropyError`, `MemoryError`); the ring is as it was.
        """
        with self._lock:
            self._open_pairs()
            try:
                new = self._new_pair()
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
        logger().debug("key %s replaced key %s", _key_id(new), _key_id(pairs.current))

    def refresh_if_due(self, period_s: float | None = None) -> None:
        """Replace the current pair if it is due, and erase every pair whose time is over. Never raises.

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
            if pairs is not None and now >= self._schedule.over_at(pairs.made_at):
                pairs.current.erase()

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

    @property
    def status(self) -> KeyRingStatus:
        """The state of the ring, for health checks and metrics. Reading it changes nothing."""
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
                failures=self._retries.total,
                last_error=self._retries.last_error,
                closed=pairs is None,
                refusals=dict(self._refusals),
            )

    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused, for `status`.

        Args:
            reason: its kind, of which there are few: nothing that a client chooses.
        """
        with self._lock:
            self._refusals[reason] += 1

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
        return f"<KeyRing period {self.period_s:g} s, overlap {self.overlap_s:g} s, {held}>"

    def _new_pair(self) -> KeyPair:
        pair = self._generate()
        self._erase_in(pair, self.period_s + self.overlap_s)
        return pair

    def _erase_in(self, pair: KeyPair, delay_s: float) -> None:
        if self._clock is boot_time:
            erase_in(pair, delay_s)

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


def _key_id(pair: KeyPair) -> str:
    return pair.public_key[:8].hex()


_rings: weakref.WeakSet[KeyRing] = weakref.WeakSet()


def _renew_locks() -> None:
    """Give a forked child locks of its own: the thread that held one does not exist there."""
    for ring in _rings:
        ring._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
