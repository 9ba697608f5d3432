"""How a ring remembers the requests to its pairs, and has pairs replaced early that can take no more of them."""

import contextlib
from collections.abc import Callable

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._keys.pair_source import PairSource, key_id
from server_keys._log import logger
from server_keys._native import ReplayTableError, ReplayTableLostError

# A member of a group may get a new key later than the others. Until then clients may fetch the one before from it.
_PUBLISHED_EVERYWHERE_AFTER_S = 2.0


def remember(source: PairSource, pairs: EpochPairs, request_id: bytes, *, refresh: Callable[[], None]) -> bool:
    """Remember a request, as `KeyRing.remember` documents.

    Args:
        source: where the ring has its pairs from.
        pairs: the epoch that the request is sealed to.
        request_id: what identifies the request, from 8 to 32 bytes.
        refresh: replaces the current pairs.

    Returns:
        Whether it is the first one of its id.

    Raises:
        ReplayTableError: the request cannot be remembered.
    """
    try:
        seen = source.seen_requests(pairs)
    except ReplayTableLostError:
        _replace_early(source, pairs, refresh)
        raise
    if seen.is_retired and _is_replaced(source, pairs):
        raise ReplayTableLostError("the key is retired: others may not know which requests were sealed to it")
    try:
        is_first = seen.add(request_id)
    except ReplayTableError:
        _replace_early(source, pairs, refresh)
        raise
    if seen.fills():
        logger().info(
            "half of the room for the requests to key %s is taken: the next key comes early", key_id(pairs.x25519)
        )
        _replace_early(source, pairs, refresh)
    return is_first


def _is_replaced(source: PairSource, pairs: EpochPairs) -> bool:
    """Return whether other pairs are published, and for so long that whoever fetches a key gets those."""
    status = source.status
    return status.current != pairs.x25519 and status.age_s is not None and status.age_s >= _PUBLISHED_EVERYWHERE_AFTER_S


def _replace_early(source: PairSource, pairs: EpochPairs, refresh: Callable[[], None]) -> None:
    """Have the next pairs made if these are the current ones."""
    # What fails is logged and counted, and tried again at the pairs' regular time.
    with contextlib.suppress(Exception):
        if source.current.x25519 == pairs.x25519:
            refresh()
