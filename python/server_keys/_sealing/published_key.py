"""The answer that publishes a key, and for how long clients may keep it."""

from server_keys._sealing.answers import Answer
from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE, key_config

# A key that is fetched now may be replaced at once, and is accepted for the overlap from then on. A client's copy must
# expire before the overlap ends, with this much time left for a request that is under way.
_TIME_UNDER_WAY_S = 5.0


def key_configuration(public_key: bytes, accepted_for_s: float) -> Answer:
    """Return the configuration of a public key. Clients may keep it for a little less time than the key is accepted.

    Args:
        public_key: the key, 32 bytes.
        accepted_for_s: seconds for which the key is accepted from now on.
    """
    return Answer(200, KEY_CONFIG_MEDIA_TYPE, key_config(public_key), cache_control=_cache_control(accepted_for_s))


def _cache_control(accepted_for_s: float) -> str:
    # `max-age` counts whole seconds. Below one second there is none to give: the key is not accepted for that long.
    shortest_s = min(int(accepted_for_s), 1)
    max_age_s = max(int(accepted_for_s - min(_TIME_UNDER_WAY_S, accepted_for_s / 10)), shortest_s)
    # A cache that many clients share would keep the key of a server that has died, or of another one.
    return f"private, max-age={max_age_s}" if max_age_s > 0 else "no-store"
