"""Agreeing on a secret with a peer whose raw public key has come in."""

from typing import Final

import pytest

from benches.comparison import Comparison, Panel
from benches.measure import Measure
from benches.peers import CRYPTOGRAPHY, PEERS, PYNACL, SERVER_KEYS, Peer, faster_than
from server_keys import KeyPair

KEY_EXCHANGE: Final = Comparison(
    title="Key exchange",
    description="From a peer's raw public key to the shared secret, with a private key that is there already.",
    reference=CRYPTOGRAPHY.name,
    speedup_title="speed against cryptography",
    targets=(faster_than(CRYPTOGRAPHY, "Key exchange", 1.3), faster_than(PYNACL, "Key exchange", 1.2)),
    panel=Panel("Key exchange", "with a raw public key", (SERVER_KEYS.name, CRYPTOGRAPHY.name, PYNACL.name)),
)
COMPARISONS: Final = (KEY_EXCHANGE,)

_PRIVATE_KEY: Final = bytes(range(32))
_PEER_PUBLIC_KEY: Final = KeyPair.from_private_key(bytes(range(1, 33))).public_key


@pytest.mark.parametrize("peer", PEERS, ids=str)
def bench_key_exchange(measure: Measure, peer: Peer) -> None:
    exchange = peer.exchange_of(_PRIVATE_KEY)
    measure(KEY_EXCHANGE, peer.name, lambda: exchange(_PEER_PUBLIC_KEY))
