"""The four implementations of X25519 that are measured side by side."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import nacl.bindings
import nacl.public
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from benches import rfc7748
from benches.comparison import Target
from benches.units import format_ratio
from server_keys import KeyPair


@dataclass(frozen=True)
class Peer:
    """One implementation, by what a server does with it."""

    name: str
    generate: Callable[[], bytes]
    """Makes a key pair, in the way the library documents, and returns its raw public key."""
    exchange_of: Callable[[bytes], Callable[[bytes], bytes]]
    """Takes a private key; returns the function from a peer's raw public key to the shared secret."""

    def __str__(self) -> str:
        return self.name


def _cryptography_exchange_of(private_key: bytes) -> Callable[[bytes], bytes]:
    own = X25519PrivateKey.from_private_bytes(private_key)
    return lambda peer_public_key: own.exchange(X25519PublicKey.from_public_bytes(peer_public_key))


SERVER_KEYS: Final = Peer(
    "server_keys",
    generate=lambda: KeyPair.generate().public_key,
    exchange_of=lambda private_key: KeyPair.from_private_key(private_key).exchange,
)
CRYPTOGRAPHY: Final = Peer(
    "cryptography",
    generate=lambda: X25519PrivateKey.generate().public_key().public_bytes_raw(),
    exchange_of=_cryptography_exchange_of,
)
PYNACL: Final = Peer(
    "PyNaCl",
    generate=lambda: bytes(nacl.public.PrivateKey.generate().public_key),
    # Its Box hashes the secret as well; the binding below it is the plain exchange.
    exchange_of=lambda private_key: lambda public_key: nacl.bindings.crypto_scalarmult(private_key, public_key),
)
PLAIN_PYTHON: Final = Peer(
    "plain Python",
    generate=lambda: rfc7748.generate_key_pair()[1],
    exchange_of=lambda private_key: lambda public_key: rfc7748.x25519(private_key, public_key),
)
PEERS: Final = (SERVER_KEYS, CRYPTOGRAPHY, PYNACL, PLAIN_PYTHON)


def faster_than(peer: Peer, what: str, at_least: float, contestant: str = SERVER_KEYS.name) -> Target:
    """The target to be so many times as fast as a peer."""
    return Target(
        f"{what}: at least {format_ratio(at_least)} the speed of `{peer}`",
        lambda measured: measured.speedup(contestant, peer.name),
        at_least=at_least,
    )


# RFC 7748, section 6.1.
_ALICE_PRIVATE_KEY: Final = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
_BOB_PUBLIC_KEY: Final = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
_SHARED_SECRET: Final = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")


def check_peers() -> None:
    """Check each implementation against the RFC's vector: a wrong one would be measured for nothing.

    Raises:
        RuntimeError: an implementation gives another shared secret than the RFC.
    """
    for peer in PEERS:
        secret = peer.exchange_of(_ALICE_PRIVATE_KEY)(_BOB_PUBLIC_KEY)
        if secret != _SHARED_SECRET:
            raise RuntimeError(
                f"{peer} does not compute X25519: it gives {secret.hex()} for the vector of RFC 7748, 6.1"
            )
