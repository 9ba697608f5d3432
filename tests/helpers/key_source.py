"""A source of key pairs that forgets none and fails when the test wants it."""

from server_keys import KeyPair


class Source:
    """Makes key pairs, keeps them all, and fails when the test wants it."""

    def __init__(self) -> None:
        self.pairs: list[KeyPair] = []
        self.error: Exception | None = None
        self.tries = 0

    def __call__(self) -> KeyPair:
        self.tries += 1
        if self.error is not None:
            raise self.error
        self.pairs.append(KeyPair.generate())
        return self.pairs[-1]

    @property
    def usable(self) -> list[int]:
        """The numbers, from 0, of the pairs that still agree on secrets."""
        return [number for number, pair in enumerate(self.pairs) if not pair.erased]
