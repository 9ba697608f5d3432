"""What the middleware tells of each request to whoever measures the app."""

import time
from enum import StrEnum, auto
from typing import Any, Protocol

# An attribute of the app. Its state would not do, because that may be deleted.
_RECORDER = "_server_keys_recorder"


class Outcome(StrEnum):
    """The ends that a request may have."""

    SEALED = auto()
    """Opened, and given to the app."""
    PLAINTEXT = auto()
    """Passed on with its body in plaintext."""
    WITHOUT_BODY = auto()
    """Passed on without a body."""
    KEY = auto()
    """Answered with the published key."""
    DISCONNECTED = auto()
    """Given up by its client before it could be opened."""
    REFUSED = auto()
    """Refused."""


class Measured:
    """What one sealed request moved: plain numbers, because every token is counted here."""

    __slots__ = (
        "arrived_at_ns",
        "opened_at_ns",
        "opening_recorded",
        "opening_s",
        "received_bytes",
        "received_frames",
        "sent_bytes",
        "sent_frames",
        "wire",
    )

    def __init__(self) -> None:
        self.arrived_at_ns = time.time_ns()
        """When the request arrived, by the wall clock."""
        self.opened_at_ns: int | None = None
        """When its first frame was opened, so that the app got the request."""
        self.opening_recorded = False
        """Whether a trace has been told."""
        self.received_bytes = 0
        """The length of the sealed body that arrived."""
        self.received_frames = 0
        """The number of its frames. Nobody counts them while they arrive: it is 0 until the body has ended."""
        self.opening_s = 0.0
        """The seconds that opening took, without the time that the body was on its way."""
        self.sent_bytes = 0
        """The length of the sealed response."""
        self.sent_frames = 0
        self.wire = "ehbp"
        """How the request was sealed: `ehbp`, or `v1`."""


class Recorder(Protocol):
    """Somebody who measures an app. Its methods must not raise."""

    def count_request(self, outcome: Outcome) -> None:
        """Count a request that was neither opened nor refused."""

    def count_refusal(self, reason: str) -> None:
        """Count a request that was refused, for the `Refusal.reason`."""

    def count_sealed(self, measured: Measured) -> None:
        """Count a request that was opened."""


def record_requests_of(app: Any, recorder: Recorder) -> None:
    """Tell `recorder` of each request to `app` from now on."""
    vars(app)[_RECORDER] = recorder


def recorder_of(app: Any) -> Recorder | None:
    """Return who measures `app`, or None."""
    recorder: Recorder | None = getattr(app, _RECORDER, None)
    return recorder
