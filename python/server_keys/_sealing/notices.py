"""The log of a server that seals: one line at its start, and few lines about refusals however many there are."""

import threading
from collections.abc import Callable

from server_keys._checks import Required
from server_keys._clock import boot_time
from server_keys._keys.ring import KeyRing
from server_keys._log import logger
from server_keys._sealing.refusals import Refusal
from server_keys.errors import KeysUnavailableError

_WITHOUT_SEALING: dict[Required, str] = {
    False: "taken, too (required=False)",
    True: "refused (required=True)",
    "v1": 'refused, and so is what is not sealed by version 1 of the wire (required="v1")',
}
# A client in a loop must not fill the disk: one line for each reason in this time.
_QUIET_S = 60.0


def log_start(ring: KeyRing, *, required: Required) -> None:
    """Log at INFO how the server that has just started handles keys and bodies."""
    logger().info(
        "key %s: %s, a new one every %g s, each accepted for %g s longer; sealed bodies (EHBP) are "
        "opened, bodies in plaintext are %s",
        ring.status.key_id,
        "keys that it shares with others" if ring.status.sharing.shared else "keys of this process",
        ring.period_s,
        ring.overlap_s,
        _WITHOUT_SEALING[required],
    )
    if required == "v1" and not _offers_v1(ring):
        logger().warning(
            'required="v1" refuses everybody for now: the ring has no X-Wing key to publish. Either it was made with a '
            "generate= of its own, or a process of a version before X-Wing shares it: then roll the new version out "
            "first"
        )


def _offers_v1(ring: KeyRing) -> bool:
    try:
        return ring.current_pairs.xwing is not None
    except KeysUnavailableError:
        return True  # nothing can be said of it, and there is a line for that elsewhere


class RefusalLog:
    """Logs refusals at WARNING: for each reason one line a minute, with the number of those that got no line.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = boot_time) -> None:
        self._clock = clock
        # Servers in several threads may serve one app.
        self._lock = threading.Lock()
        self._quiet_until: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    # Ray Serve pickles an app with all that is around it, and locks cannot be pickled. The copy counts for itself.
    def __reduce__(self) -> tuple[type["RefusalLog"], tuple[Callable[[], float]]]:
        return RefusalLog, (self._clock,)

    def add(self, refusal: Refusal) -> None:
        """Log `refusal`, or count it for the next line of its kind."""
        reason, now = refusal.reason, self._clock()
        with self._lock:
            if now < self._quiet_until.get(reason, now):
                self._unlogged[reason] = self._unlogged.get(reason, 0) + 1
                return
            self._quiet_until[reason] = now + _QUIET_S
            unlogged = self._unlogged.pop(reason, 0)
        since = f", {unlogged} more since the last such line" if unlogged else ""
        logger().warning(
            "refused a request (%s, status %d%s): %s", reason, refusal.answer.status, since, refusal.advice
        )
