"""Turns at making a group's epochs: each member has one at a time of its own, unless another makes an epoch first.

Nothing here looks at a clock or into a store: times come in, times go out.
"""

import math
import random

from server_keys._keys.schedule import Schedule
from server_keys._sharing.epoch import Epoch
from server_keys._sharing.pace import Pace

_ASKED_PERIOD_COUNTS_S = 5.0
# From so many members on, their turns are spread over two looks.
_SPREAD_MEMBERS = 20
_NEVER = float("-inf")


class Turns:
    """When one member makes an epoch, and when that is to be published.

    One thread makes epochs. Any may have them come sooner.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._none_before = _NEVER
        self._asked_period_s = math.inf
        self._asked_period_until = _NEVER
        self._bring_forward = False
        self.renew_jitter()

    def renew_jitter(self) -> None:
        """Have turns come sooner or later than until now, by chance: else all members' would come at once."""
        self._jitter = random.random()  # noqa: S311 - no secret

    def take_every(self, period_s: float, now: float) -> None:
        """Have turns after `period_s` already, if that is sooner than the schedule's period. It counts for 5 s."""
        if now >= self._asked_period_until or period_s <= self._asked_period_s:
            self._asked_period_s, self._asked_period_until = period_s, now + _ASKED_PERIOD_COUNTS_S

    def bring_forward(self) -> None:
        """Have the next epoch made at once, and published as soon as all members have it."""
        self._bring_forward = True

    def epoch_came(self) -> None:
        """Let the next turn come in time again."""
        self._bring_forward = False

    def let_others_put_back(self, now: float) -> None:
        """Have no turn for now. The store may have lost the newest epoch, and whoever holds it puts it back."""
        self._none_before = now + 1.5 * self._pace.poll_s

    @property
    def first_after_s(self) -> float:
        """Seconds after which a member that finds no epoch makes the group's first one."""
        return (0.5 + self._jitter) * self._pace.poll_s

    @property
    def unserved_after_s(self) -> float:
        """Seconds after which a member that nobody serves makes an epoch itself."""
        return self._pace.patience_s + 2 * self._jitter * self._pace.poll_s

    def has_come(self, newest: Epoch, members: int, now: float) -> bool:
        """Return whether it is time to make the epoch that follows `newest`, in a group of so many members."""
        return now >= max(self._due_at(newest, members, now), self._none_before)

    def publication(self, newest: Epoch | None, now: float) -> float:
        """Return when an epoch that is made now, to follow `newest`, is to be published."""
        if newest is None:
            return now
        soonest = now + self._pace.shortest_lead_s
        if self._bring_forward:
            return soonest
        return max(newest.publish_at + self._asked_pace(now).schedule.period_s, soonest)

    def _due_at(self, newest: Epoch, members: int, now: float) -> float:
        if self._bring_forward:
            if newest.publish_at <= now or newest.publish_at > now + self._pace.shortest_lead_s:
                return now
            self._bring_forward = False  # it is about to be published
        asked, pace = self._asked_pace(now), self._pace
        # However short this member's turns are, the others look as often as the schedule says.
        enough_s = pace.shortest_lead_s + pace.poll_s + 2 * asked.poll_s
        lead_s = max(asked.lead_s, min(enough_s, pace.lead_s))
        # Many members would begin at once. Few look at different times anyway, and each wait shortens the lead.
        spread_s = 2 * asked.poll_s * min(members / _SPREAD_MEMBERS, 1.0)
        due_at = newest.publish_at + asked.schedule.period_s - lead_s + self._jitter * spread_s
        return max(due_at, newest.publish_at)

    def _asked_pace(self, now: float) -> Pace:
        schedule = self._pace.schedule
        asked_s = self._asked_period_s if now < self._asked_period_until else math.inf
        return Pace(Schedule(min(asked_s, schedule.period_s), schedule.overlap_s))
