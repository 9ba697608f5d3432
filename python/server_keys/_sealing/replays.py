"""Whether a sealed request was received before: a recorded one can be sent again for as long as its key is accepted."""

from dataclasses import dataclass
from typing import Self

from server_keys._checks import Replay, StoreAway, checked_replay
from server_keys._keys.replays import StoreAwayError
from server_keys._keys.ring import KeyRing
from server_keys._native import ReplayTableError
from server_keys._sealing.refusals import REPLAY_STORE_AWAY, REPLAYED, Refusal, without_memory
from server_keys._sealing.wires import RequestWire

# When a client may try again whose key takes no more requests: a group publishes its next key that soon.
_NEXT_KEY_S = 3


@dataclass(frozen=True, slots=True)
class ReplayRule:
    """What happens to a sealed request that was received before."""

    replay: Replay
    store_away: StoreAway | None
    """What happens while other hosts cannot be asked. None where nobody asks them."""

    @classmethod
    def checked(cls, replay: Replay, store_away: StoreAway | None) -> Self:
        """Return the rule.

        Raises:
            TypeError: one of them is no str.
            ValueError: one of them has no known form, or `store_away` is missing or given in vain.
        """
        return cls(*checked_replay(replay, store_away))

    async def prepare(self, ring: KeyRing) -> None:
        """Prepare for requests to `ring`, whose app is about to start. Never raises."""
        if self.replay == "refuse-everywhere":
            await ring.connect_everywhere()

    async def refused(self, opened: RequestWire, ring: KeyRing) -> Refusal | None:
        """Remember a request that is authentic, before anything is done that it asks for.

        Args:
            opened: the request.
            ring: has the keys that it is sealed to.

        Returns:
            Why it is refused, if it was received before or cannot be remembered; else None.

        Raises:
            KeysUnavailableError: it cannot be remembered, and the ring has no keys any more.
        """
        if self.replay == "allow":
            return None
        try:
            if self.replay == "refuse":
                is_first = ring.remember(opened.pairs, opened.request_id)
            else:
                is_first = await ring.remember_everywhere(opened.pairs, opened.request_id)
            return None if is_first else REPLAYED
        except StoreAwayError:
            return None if self.store_away == "allow" else REPLAY_STORE_AWAY
        except ReplayTableError as error:
            has_newer_key = ring.current_pairs.x25519 != opened.pairs.x25519
            return without_memory(error, has_newer_key=has_newer_key, retry_after_s=_NEXT_KEY_S)
