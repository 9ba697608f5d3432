"""The rules of time for key pairs: when one is replaced, when nobody accepts it any more, when a failure is retried.

Nothing here looks at a clock or holds a key: times come in, times go out.
"""

import random
from dataclasses import dataclass

# The delay after the first failure, and the longest.
_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 5.0


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


@dataclass(slots=True)
class Retries:
    """Refreshes that failed: how many, why the last one did, and when to try again."""

    in_a_row: int = 0
    total: int = 0
    last_error: str | None = None
    """Why the last refresh failed; None if it succeeded."""
    at: float = 0.0
    """While refreshes fail, the time before which none is tried."""

    def failed(self, error: Exception, now: float) -> float:
        """Count a failure, and return the seconds until the next try: a capped back-off with jitter."""
        self.total += 1
        self.in_a_row += 1
        self.last_error = f"{type(error).__name__}: {error}"
        delay_s: float = min(_FIRST_RETRY_S * 2 ** min(self.in_a_row - 1, 16), _LONGEST_RETRY_S)
        # The jitter keeps the processes of one machine from retrying in step.
        delay_s *= random.uniform(0.5, 1.0)  # noqa: S311 - no secret, and it must work while the random source does not
        self.at = now + delay_s
        return delay_s

    def succeeded(self) -> None:
        """Forget the failures in a row."""
        self.in_a_row = 0
        self.last_error = None

    def allowed_at(self, due_at: float) -> float:
        """Return when what is due at `due_at` may be tried."""
        return max(due_at, self.at) if self.in_a_row else due_at
