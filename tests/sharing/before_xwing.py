"""Members of the version before X-Wing: they ask by X25519 keys, know no other asks, and make X25519 pairs."""

import json
import struct
from collections.abc import Mapping

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._native import GroupKeys, KeyPair
from server_keys._sharing.door import Door
from server_keys._sharing.epoch import Epochs
from server_keys._sharing.messages import Ask, name_of
from server_keys._sharing.pair_maker import PairMaker


class OldDoor(Door):
    """A door that reads and writes what the version before did, byte by byte."""

    def ask_also_by_x25519(self) -> None:
        """It does so anyway."""

    def asks(self, found: Mapping[bytes, bytes], numbers: frozenset[int], below: int) -> dict[bytes, Ask]:
        known = {name: ask for name, ask in found.items() if name != self.name and is_known(name, ask, self._keys)}
        asks = {name: Ask.decoded(name, ask, self._keys) for name, ask in known.items()}
        return {name: ask for name, ask in asks.items() if ask and ask.seen in numbers and ask.has < below}

    def boxes(self, asks: Mapping[bytes, Ask], epochs: Epochs, *, whole: bool) -> dict[bytes, bytes]:
        assert not any(epoch.pairs.xwing for epoch in epochs.held), "nobody gave it one"
        return super().boxes(asks, epochs, whole=whole)

    def _renew_one_time_keys(self) -> None:
        self._one_time_keys = [KeyPair.generate()]
        self.name = name_of(self._one_time_keys[0].public_key)
        self._asked = None
        self._waits_for = None


class OldPairMaker(PairMaker):
    """A maker that makes no X-Wing pairs."""

    def make(self, life_s: float, *, with_xwing: bool) -> EpochPairs | None:
        return super().make(life_s, with_xwing=False)


def is_known(name: bytes, ask: bytes, keys: GroupKeys) -> bool:
    """Return whether the version before can read an ask: this is what it did."""
    body, tag = ask[:-32], ask[-32:]
    if not 53 < len(body) <= 53 + 512 or not keys.is_ask_tag(body, tag):
        return False
    if struct.unpack_from(">BHH", body) != (1, 0x0020, 32) or name_of(body[5:37]) != name:
        return False
    try:
        member, host, pid, started = json.loads(body[53:])
    except (ValueError, TypeError):
        return False
    return all(isinstance(text, str) for text in (member, host, started)) and isinstance(pid, int)
