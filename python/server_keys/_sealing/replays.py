"""Whether a sealed request was received before: a recorded one can be sent again for as long as its key is accepted."""

from server_keys._keys.ring import KeyRing
from server_keys._native import ReplayTableError
from server_keys._sealing.refusals import REPLAYED, Refusal, without_memory
from server_keys._sealing.wires import RequestWire

# When a client may try again whose key takes no more requests: a group publishes its next key that soon.
_NEXT_KEY_S = 3


def remembered(opened: RequestWire, ring: KeyRing) -> Refusal | None:
    """Remember a request that is authentic, before anything is done that it asks for.

    Args:
        opened: the request. What others send in its client's name has not come so far.
        ring: has the keys that it is sealed to.

    Returns:
        Why it is refused, if it was received before or cannot be remembered; else None.

    Raises:
        KeysUnavailableError: it cannot be remembered, and the ring has no keys any more.
    """
    try:
        return None if ring.remember(opened.pairs, opened.request_id) else REPLAYED
    except ReplayTableError as error:
        has_newer_key = ring.current_pairs.x25519 != opened.pairs.x25519
        return without_memory(error, has_newer_key=has_newer_key, retry_after_s=_NEXT_KEY_S)
