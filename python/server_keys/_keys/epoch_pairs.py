"""The key pairs of one epoch: they are made together, published together, and erased together."""

from dataclasses import dataclass
from typing import Self

from server_keys._native import KeyPair, XWingKeyPair, erase_in


@dataclass(frozen=True, slots=True)
class EpochPairs:
    """The pairs of one epoch, of independent randomness: nothing that is learnt of one tells of the other."""

    x25519: KeyPair
    """What plain EHBP seals to."""
    xwing: XWingKeyPair | None = None
    """What version 1 of the wire seals to; None where plain EHBP is all that the server speaks."""

    @classmethod
    def generate(cls) -> Self:
        """Make both pairs.

        Raises:
            EntropyError: the random source failed.
            MemoryError: the system has no memory for the private keys.
        """
        x25519 = KeyPair.generate()
        try:
            return cls(x25519, XWingKeyPair.generate())
        except BaseException:
            x25519.erase()
            raise

    @property
    def erased(self) -> bool:
        """Whether a private key is gone. Somebody may erase one of the pairs: then the epoch is over for both."""
        return self.x25519.erased or (self.xwing is not None and self.xwing.erased)

    def erase(self) -> None:
        """Erase both private keys."""
        self.x25519.erase()
        if self.xwing is not None:
            self.xwing.erase()

    def erase_in(self, delay_s: float) -> None:
        """Have both private keys erased after some seconds, by a thread that needs no event loop.

        Raises:
            RuntimeError: the system refused the thread.
        """
        erase_in(self.x25519, delay_s)
        if self.xwing is not None:
            erase_in(self.xwing, delay_s)
