"""The native half of server_keys: X25519 key pairs in protected memory. Written in Rust: rust/binding, rust/core."""

from collections.abc import Buffer
from typing import NoReturn, final

__all__ = ["EntropyError", "InvalidPublicKeyError", "KeyErasedError", "KeyPair", "generate_key_pairs"]

class InvalidPublicKeyError(ValueError):
    """A peer's public key has the wrong length or is a point of small order."""

class KeyErasedError(RuntimeError):
    """The private key is gone: erased, or left in the process that this one was forked from."""

class EntropyError(RuntimeError):
    """The system's random source failed."""

@final
class KeyPair:
    """An X25519 key pair (RFC 7748) whose private key stays in native memory.

    The private key is locked in memory, left out of core dumps, wiped in a forked child, by `erase()` and when the last
    reference goes. Nothing in Python can read, copy or pickle it. Two pairs are equal when their public keys are.
    """

    @staticmethod
    def generate() -> KeyPair:
        """Make a key pair from the system's random source, off the GIL.

        Raises:
            EntropyError: the random source failed.
            MemoryError: the system has no memory for the private key.
        """

    @staticmethod
    def from_private_key(private_key: Buffer) -> KeyPair:
        """Make the key pair of a private key that exists already, such as a test vector's.

        Args:
            private_key: 32 bytes, as in RFC 7748. The caller's own copy stays the caller's to wipe.

        Raises:
            TypeError: `private_key` is not bytes-like.
            ValueError: it has another length than 32 bytes.
        """

    @property
    def public_key(self) -> bytes:
        """The public key: 32 bytes, as RFC 7748 encodes it. Readable after `erase()`, too."""

    @property
    def erased(self) -> bool:
        """Whether the private key is gone: by `erase()`, or because this process was forked from the key's own."""

    def exchange(self, peer_public_key: Buffer) -> bytes:
        """Agree on a secret with the owner of a public key (X25519, RFC 7748 section 6.1), off the GIL.

        Args:
            peer_public_key: the peer's raw public key, 32 bytes.

        Returns:
            The shared secret, 32 bytes. Derive keys from it (HKDF); do not use it as a key itself.

        Raises:
            InvalidPublicKeyError: the key has another length than 32 bytes, or is a point of small order.
            KeyErasedError: the private key is gone.
            TypeError: `peer_public_key` is not bytes-like.
        """

    def erase(self) -> None:
        """Wipe the private key, after the exchanges that have begun. Erasing twice is fine."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, memo: object, /) -> NoReturn: ...
    def __reduce_ex__(self, protocol: object, /) -> NoReturn: ...  # type: ignore[override]

def generate_key_pairs(count: int) -> list[KeyPair]:
    """Make many key pairs at once, off the GIL, on all processors where that is faster.

    Args:
        count: how many, from 0 to 1,048,576.

    Raises:
        EntropyError: the random source failed.
        MemoryError: the system has no memory for so many.
        TypeError: `count` is not an int.
        ValueError: `count` is negative or above 1,048,576.
    """
