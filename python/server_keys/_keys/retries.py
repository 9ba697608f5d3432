"""When a refresh that failed is tried again.

Nothing here looks at a clock: times come in, times go out.
"""

import random
from dataclasses import dataclass

# The delay after the first failure, and the longest.
_FIRST_RETRY_S = 0.1
_LONGEST_RETRY_S = 5.0


@dataclass(slots=True)
class Retries:
    """Refreshes that failed: how many, why the last one did, and when to try again."""

    in_a_row: int = 0
    total: int = 0
    last_error: str | None = None
    """Why the last refresh failed; None if it succeeded."""
    not_before: float = 0.0
    """While refreshes fail, the time before which none is tried."""

    def failed(self, error: Exception, now: float) -> float:
        """Count a failure, and return the seconds until the next try: a capped back-off with jitter."""
        self.total += 1
        self.in_a_row += 1
        self.last_error = f"{type(error).__name__}: {error}"
        delay_s: float = min(_FIRST_RETRY_S * 2 ** min(self.in_a_row - 1, 16), _LONGEST_RETRY_S)
        # The jitter keeps the processes of one machine from retrying in step.
        delay_s *= random.uniform(0.5, 1.0)  # noqa: S311 - no secret, and it must work while the random source does not
        self.not_before = now + delay_s
        return delay_s

    def succeeded(self) -> None:
        """Forget the failures in a row."""
        self.in_a_row = 0
        self.last_error = None

    def allowed_at(self, due_at: float) -> float:
        """Return when what is due at `due_at` may be tried."""
        return max(due_at, self.not_before) if self.in_a_row else due_at
