"""The making of an epoch's pairs: tried again after a while where it fails, and undone when their time is over."""

from collections.abc import Callable

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.retries import Retries
from server_keys._native import KeyPair, XWingKeyPair
from server_keys._sharing.notices import Notices


class PairMaker:
    """Makes the pairs of one member's epochs. Any thread may call.

    Args:
        notices: the log.
        clock: tells the time in seconds, and never goes backwards.
        generate: makes a key pair.
        generate_xwing: makes an X-Wing pair.
        erase_on_time: has pairs erased when their time is over, by a thread that waits for nobody. That thread goes by
            the system's clock.
    """

    def __init__(
        self,
        notices: Notices,
        *,
        clock: Callable[[], float],
        generate: Callable[[], KeyPair] = KeyPair.generate,
        generate_xwing: Callable[[], XWingKeyPair] = XWingKeyPair.generate,
        erase_on_time: bool = True,
    ) -> None:
        self.retries = Retries()
        """The tries that failed."""
        self._notices = notices
        self._clock = clock
        self._generate = generate
        self._generate_xwing = generate_xwing
        self._erase_on_time = erase_on_time

    def may_try(self, now: float) -> bool:
        """Return whether `make` may be called: not for a while after it failed."""
        return now >= self.retries.allowed_at(now)

    def make(self, life_s: float, *, with_xwing: bool) -> EpochPairs | None:
        """Make pairs that exist for `life_s` at most; None if that failed, which is logged and counted."""
        try:
            pairs = EpochPairs(self._generate())
            if with_xwing:
                pairs = EpochPairs(pairs.x25519, self._generate_xwing())
            self.erase_in(pairs, life_s)
        except Exception as error:  # noqa: BLE001 - logged, counted, and tried again after a back-off
            self._notices.refresh_failed(self.retries, self.retries.failed(error, self._clock()))
            return None
        self.retries.succeeded()
        return pairs

    def erase_in(self, pairs: EpochPairs, delay_s: float) -> None:
        """Have pairs erased after some seconds, also if nobody looks then.

        Raises:
            RuntimeError: the system refused the thread.
        """
        if self._erase_on_time:
            pairs.erase_in(delay_s)
