"""One member of a group: what it does at each look into the store.

The protocol has no leader. Whoever comes first makes the next epoch, and leaves it in the store, sealed to each
member's one-time key, in one commit with the register that names it. Members accept an epoch when it arrives, and
publish it only after all of them had time to fetch it. The register is a hint; what is in a box counts.

One thread looks and changes `epochs`. Any may read them, and any may make a pair of the member's own.
"""

import contextlib
import math
import random
import threading
from collections.abc import Callable

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.fork import renew_lock_after_fork
from server_keys._keys.retries import Retries
from server_keys._keys.schedule import Schedule
from server_keys._native import KeyPair, MalformedMessageError, XWingKeyPair
from server_keys._sharing.door import Door
from server_keys._sharing.epoch import NONE, Epoch, Epochs, Rank, erase_those_gone
from server_keys._sharing.messages import Ask
from server_keys._sharing.notices import Notices
from server_keys._sharing.pace import Pace
from server_keys._sharing.store import CrowdedStoreError, Look, StoreError

# A member that is alone with its epochs makes pairs of its own after so many seconds without a word from the store, or
# without a member that serves it.
_SILENT_S = 1.0
_UNSERVED_S = 4.0
_ASKED_PERIOD_COUNTS_S = 5.0
# From so many members on, their turns are spread over two looks.
_SPREAD_MEMBERS = 20
_NEVER = float("-inf")


class Member:
    """A member of one group.

    Args:
        doors: its doors. It makes epochs at the first one, and carries them to the others.
        pace: the schedule and what follows from it.
        clock: tells the time in seconds, and never goes backwards.
        generate: makes a key pair.
        generate_xwing: makes an X-Wing pair.
        erase_on_time: has pairs erased when their time is over, by a thread that waits for nobody. That thread goes by
            the system's clock.
    """

    def __init__(
        self,
        doors: list[Door],
        pace: Pace,
        notices: Notices,
        *,
        clock: Callable[[], float],
        generate: Callable[[], KeyPair] = KeyPair.generate,
        generate_xwing: Callable[[], XWingKeyPair] = XWingKeyPair.generate,
        erase_on_time: bool = True,
    ) -> None:
        self.epochs = Epochs()
        """The group's epochs."""
        self.own: tuple[Epoch, ...] = ()
        """Pairs of this member's own, for as long as it cannot reach the group. They never leave it."""
        self.contact_at = clock()
        """When the member last reached the store."""
        self.members: int | None = None
        """How many members have an ask in the store, this one included."""
        self.retries = Retries()
        self._doors = doors
        self._pace = pace
        self._notices = notices
        self._clock = clock
        self._generate = generate
        self._generate_xwing = generate_xwing
        # Whether the group's newest epoch says so. Until this member knows one, it takes no other version for granted.
        self._all_take_xwing = True
        self._erase_on_time = erase_on_time
        self._top = NONE
        self._maybe: Epoch | None = None
        self._maybe_boxes = 0
        self._lock = threading.RLock()
        renew_lock_after_fork(self)
        self._whole_at = _NEVER
        self._reachable_since: float | None = None
        self._make_from = _NEVER
        self._jitter = random.random()  # noqa: S311 - no secret
        self._asked_period_s = math.inf
        self._asked_period_until = _NEVER
        self._bring_forward = False

    def take_turns_every(self, period_s: float) -> None:
        """Make epochs after `period_s` already, if that is sooner than the schedule's period. It counts for 5 s."""
        now = self._clock()
        if now >= self._asked_period_until or period_s <= self._asked_period_s:
            self._asked_period_s, self._asked_period_until = period_s, now + _ASKED_PERIOD_COUNTS_S

    def bring_forward(self) -> None:
        """Have the next epoch published as soon as all members have it."""
        self._bring_forward = True

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
        with self._lock:
            now = self._clock()
            own = tuple(epoch for epoch in self.own if now < epoch.ends_at)
            if self._is_cut_off(now) and (not own or now >= own[-1].publish_at + self._pace.schedule.period_s):
                own += self._own_pair(now)
            if own != self.own:
                erase_those_gone(self.own, own)
                self.own = own

    def current(self, now: float) -> Epoch | None:
        """Return the epoch that is published: the group's, else this member's own."""
        shared = self.epochs.current(now, spare_s=self._pace.poll_s)
        if shared is None and self.own and now < self.own[-1].ends_at and not self.own[-1].pairs.erased:
            return self.own[-1]
        return shared

    def close(self) -> None:
        """Leave the group and erase every pair. To be called by the thread that looks. Never raises."""
        for door in self._doors:
            door.close()
        self.erase()

    def erase(self) -> None:
        """Erase every pair, and hold none. Any thread may call."""
        self._hold(Epochs())
        with self._lock:
            erase_those_gone(self.own, ())
            self.own = ()
        if self._maybe:
            self._maybe.pairs.erase()

    def _look_through(self, door: Door) -> None:
        look = door.look()
        self.contact_at = now = self._clock()
        if self._reachable_since is None:
            self._let_others_put_back(now)
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
        elif waited_s > self._pace.patience_s + 2 * self._jitter * self._pace.poll_s:
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
        elif waited_s > (0.5 + self._jitter) * self._pace.poll_s and door is self._doors[0]:
            self._make_epoch(door, "there is none", others_may_hold_more=True)

    def _keep_up(self, door: Door, look: Look, theirs: Rank, now: float) -> None:
        """Do a member's duties: keep the register, serve those who wait, make the next epoch in time."""
        newest = self.epochs.newest
        if theirs < newest:
            self._hold(self.epochs.lost_at(now))
            self._let_others_put_back(now)
            if not self._put_back(door, newest):
                return
            theirs = newest
        if not door.has_asked(look):
            door.ask(theirs, newest.number, waits=False)
        self._serve(door, look, theirs, now)
        if door is self._doors[0] and now >= max(self._turn_at(now), self._make_from):
            self._make_epoch(door, "its time has come")

    def _let_others_put_back(self, now: float) -> None:
        """Make no epoch for now. The store may have lost the newest one, and whoever holds it puts it back."""
        self._make_from = now + 1.5 * self._pace.poll_s

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

    def _turn_at(self, now: float) -> float:
        """Return when this member makes the next epoch, unless another one does first."""
        newest = self.epochs.held[-1]
        if self._bring_forward:
            if newest.publish_at <= now or newest.publish_at > now + self._pace.shortest_lead_s:
                return now
            self._bring_forward = False  # it is about to be published
        turn, pace = self._turn_pace, self._pace
        # However short this member's turns are, the others look as often as the schedule says.
        enough_s = pace.shortest_lead_s + pace.poll_s + 2 * turn.poll_s
        lead_s = max(turn.lead_s, min(enough_s, pace.lead_s))
        # Many members would begin at once. Few look at different times anyway, and each wait shortens the lead.
        spread_s = 2 * turn.poll_s * min((self.members or 1) / _SPREAD_MEMBERS, 1.0)
        due_at = newest.publish_at + turn.schedule.period_s - lead_s + self._jitter * spread_s
        return max(due_at, newest.publish_at)

    @property
    def _turn_pace(self) -> Pace:
        schedule = self._pace.schedule
        asked_s = self._asked_period_s if self._clock() < self._asked_period_until else math.inf
        return Pace(Schedule(min(asked_s, schedule.period_s), schedule.overlap_s))

    def _make_epoch(self, door: Door, why: str, *, others_may_hold_more: bool = False) -> None:
        """Make an epoch, and commit it to the store for all members."""
        now = self._clock()
        if now < self.retries.allowed_at(now):
            return
        number = max(self._top.number, (door.found or NONE).number) + 1
        numbers = {(door.found or NONE).number, *([0] if others_may_hold_more else [])}
        asks = self._asks(door, number, numbers)
        pairs = self._new_pairs(self._pace.life_s, with_xwing=self._take_xwing(door, asks, number, numbers))
        if pairs is None:
            return
        newest = self.epochs.held[-1] if self.epochs.held else None
        publish_at = self._publication(newest, now)
        schedule = self._pace.schedule
        epoch = Epoch(
            number,
            pairs,
            publish_at,
            publish_at + schedule.period_s + schedule.overlap_s,
            now,
        )
        if newest is None:
            # Others may hold epochs that this member does not know.
            self._whole_at = now + self._pace.life_s
        offered = self.epochs.joined_by([epoch], whole=False)
        boxes = self._boxes(door, asks, offered)
        # If the store's answer gets lost, the commit may have happened.
        self._maybe, self._maybe_boxes = epoch, len(boxes)
        if not door.commit(epoch.rank, boxes):
            self._maybe = None
            pairs.erase()
            return
        self._maybe = None
        self._install([epoch], whole=False)
        self._jitter = random.random()  # noqa: S311 - no secret
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

    def _publication(self, newest: Epoch | None, now: float) -> float:
        """Return when an epoch that is made now is to be published."""
        if newest is None:
            return now
        soonest = now + self._pace.shortest_lead_s
        if self._bring_forward:
            return soonest
        return max(newest.publish_at + self._turn_pace.schedule.period_s, soonest)

    def _asks(self, door: Door, below: int, numbers: set[int] | None = None) -> dict[bytes, Ask]:
        """Return the asks at a door that can be served."""
        return door.asks(door.store.asks(), self.epochs.numbers | (numbers or set()), below)

    def _boxes(self, door: Door, asks: dict[bytes, Ask], epochs: Epochs) -> dict[bytes, bytes]:
        return door.boxes(asks, epochs, whole=self._clock() >= self._whole_at) if asks else {}

    def _tell_of_joining(self, ask: Ask) -> None:
        if ask.has == 0:
            self._notices.joined(ask.who)

    def _install(self, epochs: list[Epoch] | tuple[Epoch, ...], *, whole: bool) -> None:
        before = self.epochs
        after = before.joined_by(epochs, whole=whole)
        if whole:
            self._whole_at = _NEVER
        self._top = max(self._top, after.newest)
        self._all_take_xwing = after.held[-1].pairs.xwing is not None
        self._bring_forward = False
        if self._erase_on_time:
            now = self._clock()
            for epoch in after.held:
                if epoch not in before.held:
                    epoch.pairs.erase_in(epoch.ends_at - now)
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

    def _own_pair(self, now: float) -> tuple[Epoch, ...]:
        if now < self.retries.allowed_at(now):
            return ()
        schedule = self._pace.schedule
        life_s = schedule.period_s + schedule.overlap_s
        pairs = self._new_pairs(life_s, with_xwing=self._all_take_xwing)
        if pairs is None:
            return ()
        return (Epoch(0, pairs, now, now + life_s, now),)

    def _new_pairs(self, life_s: float, *, with_xwing: bool) -> EpochPairs | None:
        try:
            pairs = EpochPairs(self._generate())
            if with_xwing:
                pairs = EpochPairs(pairs.x25519, self._generate_xwing())
            if self._erase_on_time:
                pairs.erase_in(life_s)
        except Exception as error:  # noqa: BLE001 - logged, counted, and tried again after a back-off
            delay_s = self.retries.failed(error, self._clock())
            self._notices.refresh_failed(self.retries, delay_s)
            return None
        self.retries.succeeded()
        return pairs
