"""Where a test's key pairs come from: none is forgotten, and it fails when the test wants it."""

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
        """Which of the pairs still agree on secrets, by their number from 0."""
        return [number for number, pair in enumerate(self.pairs) if not pair.erased]
