"""The rules of time for key pairs: when one is replaced, and when nobody accepts it any more.

Nothing here looks at a clock or holds a key: times come in, times go out.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schedule:
    """The life of a key pair: current for a period, then accepted for an overlap."""

    period_s: float
    """Seconds until a pair is replaced."""
    overlap_s: float
    """Seconds for which a replaced pair is still accepted."""

    def replaced_at(self, made_at: float, period_s: float | None = None) -> float:
        """Return when a pair is due to be replaced: after `period_s` if that is shorter than the schedule's period."""
        return made_at + (self.period_s if period_s is None else min(period_s, self.period_s))

    def accepted_until(self, made_at: float, replaced_at: float) -> float:
        """Return when the overlap of a pair ends.

        A pair that is replaced late does not live longer for it: its overlap began when it was due to be replaced.
        """
        began_at: float = min(replaced_at, self.replaced_at(made_at))
        return began_at + self.overlap_s

    def over_at(self, made_at: float) -> float:
        """Return when nobody accepts a pair any more, even if no other has replaced it."""
        return made_at + self.period_s + self.overlap_s

    def require_same(self, other: "Schedule") -> None:
        """Check that `other` is the same schedule, because an app's keys have only one.

        Raises:
            RuntimeError: `other` is a different schedule; the message names both.
        """
        if other != self:
            raise RuntimeError(
                f"the app's keys have {self} already, and cannot have {other}, too: give the same refresh time and "
                "overlap in both places, or leave one of them out"
            )

    def __str__(self) -> str:
        return f"a refresh time of {self.period_s:g} s with an overlap of {self.overlap_s:g} s"
