"""One member of a group: what it does at each look into the store.

The protocol has no leader. Whoever comes first makes the next epoch, and leaves it in the store, sealed to each
member's one-time key, in one commit with the register that names it. Members accept an epoch when it arrives, and
publish it only after all of them had time to fetch it. The register is a hint; what is in a box counts.

One thread looks and changes `epochs`. Any may read them, and any may make a pair of the member's own.
"""

import contextlib
import math
import random
from collections.abc import Callable

from server_keys._native import MalformedMessageError
from server_keys._sharing.door import Door
from server_keys._sharing.epoch import NONE, Epoch, Epochs, Rank, erase_those_gone
from server_keys._sharing.fallback_pairs import FallbackPairs
from server_keys._sharing.messages import Ask
from server_keys._sharing.notices import Notices
from server_keys._sharing.pace import Pace
from server_keys._sharing.pair_maker import PairMaker
from server_keys._sharing.store import CrowdedStoreError, Look, StoreError
from server_keys._sharing.turns import Turns

# A member that is alone with its epochs makes pairs of its own after so many seconds without a word from the store, or
# without a member that serves it.
_SILENT_S = 1.0
_UNSERVED_S = 4.0
_NEVER = float("-inf")


class Member:
    """A member of one group.

    Args:
        doors: its doors. It makes epochs at the first one, and carries them to the others.
        pace: the schedule and what follows from it.
        maker: makes the pairs of epochs.
        clock: tells the time in seconds, and never goes backwards.
    """

    def __init__(
        self, doors: list[Door], pace: Pace, notices: Notices, maker: PairMaker, *, clock: Callable[[], float]
    ) -> None:
        self.epochs = Epochs()
        """The group's epochs."""
        self.contact_at = clock()
        """When the member last reached the store."""
        self.members: int | None = None
        """How many members have an ask in the store, this one included."""
        self.retries = maker.retries
        self._doors = doors
        self._pace = pace
        self._notices = notices
        self._maker = maker
        self._clock = clock
        self._turns = Turns(pace)
        self._fallback = FallbackPairs(maker, pace.schedule)
        # Whether the group's newest epoch says so. Until this member knows one, it takes no other version for granted.
        self._all_take_xwing = True
        self._top = NONE
        self._maybe: Epoch | None = None
        self._maybe_boxes = 0
        self._whole_at = _NEVER
        self._reachable_since: float | None = None

    @property
    def own(self) -> tuple[Epoch, ...]:
        """Pairs of this member's own, for as long as it cannot reach the group. They never leave it."""
        return self._fallback.held

    def take_turns_every(self, period_s: float) -> None:
        """Make epochs after `period_s` already, if that is sooner than the schedule's period. It counts for 5 s."""
        self._turns.take_every(period_s, self._clock())

    def bring_forward(self) -> None:
        """Have the next epoch published as soon as all members have it."""
        self._turns.bring_forward()

    def next_look_in_s(self) -> float:
        """Seconds until the next look is due: less while something is waited for. Jitter keeps members out of step."""
        now = self._clock()
        serve_in_s = min((door.serve_at - now for door in self._doors if door.serve_at is not None), default=math.inf)
        return max(min(self._pace.next_look_s(hurried=self._is_hurried(now)), serve_in_s), 0.0)

    def look(self) -> None:
        """Look into the store and do what is to be done there. To be called by one thread only.

        Raises:
            StoreError: the store cannot be used. What the member holds stays.
            KeyErasedError: an epoch ended meanwhile. The next look goes on without it.
        """
        try:
            for door in self._doors:
                try:
                    self._look_through(door)
                except CrowdedStoreError:
                    self._notices.crowded_store()
                    door.store.forget_asks()
        except StoreError:
            self._reachable_since = None
            for door in self._doors:
                # Else the next look would be overdue, and the one after it, for as long as the store is away.
                door.serve_at = None
            raise
        now = self._clock()
        if self._reachable_since is None:
            self._reachable_since = now
        if now - self._reachable_since >= self._pace.shortest_lead_s:
            self._hold(self.epochs.settled_since(now - self._pace.shortest_lead_s))

    def drop_ended(self) -> None:
        """Let go of the epochs that have ended. To be called by the thread that looks."""
        self._hold(self.epochs.without_ended(self._clock()))

    def cover_silence(self) -> None:
        """Make a pair of this member's own if the group cannot be reached and no other is left. Any thread may call."""
        now = self._clock()
        self._fallback.renew(now, is_needed=self._is_cut_off(now), with_xwing=self._all_take_xwing)

    def current(self, now: float) -> Epoch | None:
        """Return the epoch that is published: the group's, else this member's own."""
        return self.epochs.current(now, spare_s=self._pace.poll_s) or self._fallback.current(now)

    def close(self) -> None:
        """Leave the group and erase every pair. To be called by the thread that looks. Never raises."""
        for door in self._doors:
            door.close()
        self.erase()

    def erase(self) -> None:
        """Erase every pair, and hold none. Any thread may call."""
        self._hold(Epochs())
        self._fallback.erase()
        if maybe := self._maybe:
            maybe.pairs.erase()

    def _look_through(self, door: Door) -> None:
        look = door.look()
        self.contact_at = now = self._clock()
        if self._reachable_since is None:
            self._turns.let_others_put_back(now)
        self.members = max(look.asks, 0 if door is self._doors[0] else self.members or 0)
        self._hold(self.epochs.without_ended(now))
        theirs = door.found
        if theirs is None:
            self._notices.forged_register()
            theirs = NONE
        if self._maybe and theirs == self._maybe.rank:
            self._install([self._maybe], whole=False)
            self._notices.made(self._maybe, self._maybe_boxes, "the store did not say whether it took it")
            self._maybe = None
        elif theirs > self.epochs.newest and theirs >= self._top:
            self._catch_up(door, look, theirs, now)
        elif not self.epochs.held:
            self._begin(door, look, theirs, now)
        else:
            door.waiting_since = None
            self._keep_up(door, look, theirs, now)

    def _catch_up(self, door: Door, look: Look, theirs: Rank, now: float) -> None:
        """Be served: the group has an epoch that this member lacks."""
        door.serve_at = None
        if self._took_box(door):
            return
        waited_s = door.waits_for_s(now)
        is_passed_over = door.has_asked(look) and not door.has_asked(look, waits_for=theirs)
        if not door.asks_also_by_x25519 and (is_passed_over or waited_s > self._pace.poll_s):
            # Whoever made the epoch, or should serve it, may be of a version that does not know X-Wing.
            door.ask_also_by_x25519()
            door.ask(theirs, min(self.epochs.newest.number, theirs.number - 1), waits=True)
        elif not door.has_asked(look, waits_for=theirs):
            # Two members may have made epochs of one number. Who holds the lower one lacks the other.
            door.ask(theirs, min(self.epochs.newest.number, theirs.number - 1), waits=True)
        elif waited_s > self._turns.unserved_after_s:
            # Whoever held it is gone.
            door.waiting_since = now
            self._make_epoch(door, "nobody serves the newest one", others_may_hold_more=True)

    def _took_box(self, door: Door) -> bool:
        try:
            delivery = door.take()
        except MalformedMessageError:
            self._notices.forged_box()
            return False
        if delivery is None:
            return False
        if not delivery.epochs or max(epoch.rank for epoch in delivery.epochs) <= self.epochs.newest:
            erase_those_gone(delivery.epochs, ())
            return False
        joins = not self.epochs.held
        self._install(delivery.epochs, whole=delivery.whole)
        if joins:
            self._hold(self.epochs.published_by_others(self._clock()))
        if self._all_take_xwing:
            door.ask_by_xwing_alone()
        door.ask(self.epochs.newest, self.epochs.newest.number, waits=False)
        return True

    def _begin(self, door: Door, look: Look, theirs: Rank, now: float) -> None:
        """Make the group's first epoch, unless another member does: none is known that lives."""
        door.serve_at = None
        waited_s = door.waits_for_s(now)
        if not door.has_asked(look):
            door.ask(theirs, 0, waits=False)
        elif waited_s > self._turns.first_after_s and door is self._doors[0]:
            self._make_epoch(door, "there is none", others_may_hold_more=True)

    def _keep_up(self, door: Door, look: Look, theirs: Rank, now: float) -> None:
        """Do a member's duties: keep the register, serve those who wait, make the next epoch in time."""
        newest = self.epochs.newest
        if theirs < newest:
            self._hold(self.epochs.lost_at(now))
            self._turns.let_others_put_back(now)
            if not self._put_back(door, newest):
                return
            theirs = newest
        if not door.has_asked(look):
            door.ask(theirs, newest.number, waits=False)
        self._serve(door, look, theirs, now)
        if door is self._doors[0] and self._turns.has_come(self.epochs.held[-1], self.members or 1, now):
            self._make_epoch(door, "its time has come")

    def _put_back(self, door: Door, newest: Rank) -> bool:
        """Put the register back that somebody removed, or put it there for the first time at a second door."""
        if len(self._doors) == 1:
            return door.restore(newest)
        asks = self._asks(door, newest.number)
        return door.commit(newest, self._boxes(door, asks, self.epochs))

    def _serve(self, door: Door, look: Look, theirs: Rank, now: float) -> None:
        """Serve those who wait, after a random time: so that one does it, and not all at once."""
        if not look.waiting:
            door.serve_at = None
            return
        if door.serve_at is None:
            most_s = self._pace.poll_s / (4 if self._is_hurried(now) else 1)
            door.serve_at = now + random.uniform(0, most_s)  # noqa: S311 - no secret
        if now < door.serve_at:
            return
        door.serve_at = None
        asks = door.asks(door.store.waiting(), self.epochs.numbers, theirs.number)
        for name, box in self._boxes(door, asks, self.epochs).items():
            if door.store.serve(name, box, self._pace.life_s):
                self._tell_of_joining(asks[name])

    def _make_epoch(self, door: Door, why: str, *, others_may_hold_more: bool = False) -> None:
        """Make an epoch for all members, unless making pairs failed shortly before."""
        now = self._clock()
        if not self._maker.may_try(now):
            return
        number = max(self._top.number, (door.found or NONE).number) + 1
        numbers = {(door.found or NONE).number, *([0] if others_may_hold_more else [])}
        asks = self._asks(door, number, numbers)
        pairs = self._maker.make(self._pace.life_s, with_xwing=self._take_xwing(door, asks, number, numbers))
        if pairs is None:
            return
        newest = self.epochs.held[-1] if self.epochs.held else None
        if newest is None:
            # Others may hold epochs that this member does not know.
            self._whole_at = now + self._pace.life_s
        publish_at = self._turns.publication(newest, now)
        self._commit(door, Epoch(number, pairs, publish_at, self._pace.schedule.over_at(publish_at), now), asks, why)

    def _commit(self, door: Door, epoch: Epoch, asks: dict[bytes, Ask], why: str) -> None:
        """Leave a new epoch in the store for those who ask, and hold it. If the register was changed, there is none."""
        boxes = self._boxes(door, asks, self.epochs.joined_by([epoch], whole=False))
        # If the store's answer gets lost, the commit may have happened.
        self._maybe, self._maybe_boxes = epoch, len(boxes)
        if not door.commit(epoch.rank, boxes):
            self._maybe = None
            epoch.pairs.erase()
            return
        self._maybe = None
        self._install([epoch], whole=False)
        self._turns.renew_jitter()
        self._notices.made(epoch, len(boxes), why)
        for name in boxes:
            self._tell_of_joining(asks[name])
        if self._all_take_xwing:
            door.ask_by_xwing_alone()
        door.ask(epoch.rank, epoch.number, waits=False)

    def _take_xwing(self, door: Door, asks: dict[bytes, Ask], below: int, numbers: set[int]) -> bool:
        """Return whether all members can take X-Wing pairs: those who ask at this door, and at the others."""
        all_asks = [*asks.values()]
        for other in self._doors:
            if other is not door:
                with contextlib.suppress(StoreError):
                    all_asks += self._asks(other, below, numbers).values()
        return all(ask.takes_xwing for ask in all_asks)

    def _asks(self, door: Door, below: int, numbers: set[int] | None = None) -> dict[bytes, Ask]:
        """Return the asks at a door that can be served."""
        return door.asks(door.store.asks(), self.epochs.numbers | (numbers or set()), below)

    def _boxes(self, door: Door, asks: dict[bytes, Ask], epochs: Epochs) -> dict[bytes, bytes]:
        return door.boxes(asks, epochs, whole=self._clock() >= self._whole_at) if asks else {}

    def _tell_of_joining(self, ask: Ask) -> None:
        if ask.has == 0:
            self._notices.joined(ask.who)

    def _install(self, epochs: list[Epoch] | tuple[Epoch, ...], *, whole: bool) -> None:
        after = self.epochs.joined_by(epochs, whole=whole)
        if whole:
            self._whole_at = _NEVER
        self._top = max(self._top, after.newest)
        self._all_take_xwing = after.held[-1].pairs.xwing is not None
        self._turns.epoch_came()
        now = self._clock()
        for epoch in after.held:
            if epoch not in self.epochs.held:
                self._maker.erase_in(epoch.pairs, epoch.ends_at - now)
        self._hold(after)
        erase_those_gone(epochs, after.held)

    def _hold(self, epochs: Epochs) -> None:
        if epochs is not self.epochs:
            before, self.epochs = self.epochs, epochs
            erase_those_gone(before.held, epochs.held)

    def _is_cut_off(self, now: float) -> bool:
        """Return whether there is no epoch of the group to publish, and none to be had at the moment."""
        if self.epochs.current(now) is not None:
            return False
        return now - self.contact_at > _SILENT_S or (self._lost_for_s(now) or 0.0) > _UNSERVED_S

    def _is_hurried(self, now: float) -> bool:
        """Return whether the member waits for an epoch, or an epoch has to get to all members soon."""
        settled_until = self.epochs.settled_until
        is_late = settled_until is not None and settled_until < now + self._pace.shortest_lead_s
        return is_late or self._lost_for_s(now) is not None

    def _lost_for_s(self, now: float) -> float | None:
        """Return for how long the member has waited for what the group holds; None if it lacks nothing."""
        waits = [now - door.waiting_since for door in self._doors if door.waiting_since is not None]
        return max(waits, default=None)
