"""The pace of a group: how often its members look into the store, and how early they share a key before publishing it.

Nothing here looks at a clock.
"""

import random
from dataclasses import dataclass

from server_keys._keys.schedule import Schedule

_LONGEST_POLL_S = 0.25
_LONGEST_LEAD_S = 30.0
_POLLS_OF_LEAD = 4


@dataclass(frozen=True, slots=True)
class Pace:
    """How a member keeps to a schedule together with others."""

    schedule: Schedule

    @property
    def poll_s(self) -> float:
        """Seconds between looks into the store."""
        return min(_LONGEST_POLL_S, self.schedule.period_s / 10)

    @property
    def shortest_lead_s(self) -> float:
        """Seconds that every member surely needs to fetch a new epoch: four looks."""
        return _POLLS_OF_LEAD * self.poll_s

    @property
    def lead_s(self) -> float:
        """Seconds before its publication at which an epoch is made."""
        return max(min(self.schedule.period_s / 2, _LONGEST_LEAD_S), self.shortest_lead_s)

    @property
    def life_s(self) -> float:
        """Seconds for which a private key exists at most."""
        return self.lead_s + self.schedule.period_s + self.schedule.overlap_s

    @property
    def patience_s(self) -> float:
        """Seconds after which a member that nobody serves makes an epoch itself: four looks of one that would."""
        return max(4 * self.poll_s, 0.5)

    def next_look_s(self, *, hurried: bool) -> float:
        """Return the seconds until the next look. Jitter keeps the members of a group from looking in step."""
        wait_s = self.poll_s / 4 if hurried else self.poll_s
        return wait_s * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
