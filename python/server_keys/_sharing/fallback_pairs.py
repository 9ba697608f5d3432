"""The pairs of a member's own, for as long as it cannot reach its group. They never leave it."""

import threading

from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.schedule import Schedule
from server_keys._sharing.epoch import Epoch, erase_those_gone
from server_keys._sharing.pair_maker import PairMaker


class FallbackPairs:
    """One member's own pairs, as epochs of number 0, which no group has. Any thread may call."""

    def __init__(self, maker: PairMaker, schedule: Schedule) -> None:
        self.held: tuple[Epoch, ...] = ()
        """Oldest first. Readers on other threads see one state or the next."""
        self._maker = maker
        self._schedule = schedule
        self._lock = threading.RLock()
        renew_lock_after_fork(self)

    def current(self, now: float) -> Epoch | None:
        """Return the newest, if it lives."""
        newest = self.held[-1:]
        return newest[0] if newest and now < newest[0].ends_at and not newest[0].pairs.erased else None

    def renew(self, now: float, *, is_needed: bool, with_xwing: bool) -> None:
        """Let go of those that have ended, or that somebody erased. If `is_needed`, make the next when it is due."""
        with self._lock:
            own = tuple(epoch for epoch in self.held if now < epoch.ends_at and not epoch.pairs.erased)
            if is_needed and (not own or now >= self._schedule.replaced_at(own[-1].publish_at)):
                own += self._new(now, with_xwing)
            self._hold(own)

    def erase(self) -> None:
        """Erase every pair, and hold none."""
        with self._lock:
            self._hold(())

    def _new(self, now: float, with_xwing: bool) -> tuple[Epoch, ...]:
        life_s = self._schedule.period_s + self._schedule.overlap_s
        pairs = self._maker.make(life_s, with_xwing=with_xwing) if self._maker.may_try(now) else None
        return (Epoch(0, pairs, now, now + life_s, now),) if pairs else ()

    def _hold(self, own: tuple[Epoch, ...]) -> None:
        before, self.held = self.held, own
        erase_those_gone(before, own)
