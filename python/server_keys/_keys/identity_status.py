"""What the status of a ring says about the identity that signs its keys."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IdentityStatus:
    """The state of a server's identity, for health checks and metrics. It contains no secret."""

    identity: str | None
    """The identity, as clients name it; None while its file has not been read."""
    is_published: bool
    """Whether there is a signed answer whose keys are accepted. Without one no keys are published."""
    age_s: float | None
    """Seconds since the newest signature was made; None before the first."""
    expires_in_s: float | None
    """Seconds until the newest signature ends; None before the first."""
    failures: int
    """How many tries to sign failed."""
    last_error: str | None
    """Why the last try failed; None when it succeeded."""
