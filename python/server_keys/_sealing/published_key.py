"""The answer that publishes a key, and for how long clients may keep it."""

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._sealing.answers import Answer
from server_keys._sealing.key_entries import PublishedKeys, XWingKey, key_answer, key_id_of
from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE

# A key that is fetched now may be replaced at once, and is accepted for the overlap from then on. A client's copy must
# expire before the overlap ends, with this much time left for a request that is under way.
_TIME_UNDER_WAY_S = 5.0


def published_key(pairs: EpochPairs, accepted_for_s: float) -> Answer:
    """Return the answer that publishes an epoch. Clients may keep it for a little less time than it is accepted.

    Args:
        pairs: the pairs of the epoch.
        accepted_for_s: seconds for which they are accepted from now on.
    """
    xwing = None
    if pairs.xwing is not None:
        public_key = pairs.xwing.public_key
        xwing = XWingKey(key_id_of(public_key), public_key)
    answer = key_answer(PublishedKeys(pairs.x25519.public_key, xwing))
    return Answer(200, KEY_CONFIG_MEDIA_TYPE, answer, cache_control=_cache_control(accepted_for_s))


def _cache_control(accepted_for_s: float) -> str:
    # `max-age` counts whole seconds. Below one second there is none to give: the key is not accepted for that long.
    shortest_s = min(int(accepted_for_s), 1)
    max_age_s = max(int(accepted_for_s - min(_TIME_UNDER_WAY_S, accepted_for_s / 10)), shortest_s)
    # A cache that many clients share would keep the key of a server that has died, or of another one.
    return f"private, max-age={max_age_s}" if max_age_s > 0 else "no-store"
