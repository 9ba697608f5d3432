"""How a body is cut into frames."""

from __future__ import annotations

from collections.abc import Iterator

from server_keys._sealing.protocol import FRAME_PLAINTEXT_BYTES
from server_keys.errors import SealedTransportError


def require_length(announced: int | None, found: int) -> None:
    """Raise a `SealedTransportError` if a body that is not sent yet has another length than was announced."""
    if announced is not None and found != announced:
        raise SealedTransportError(
            f"nothing was sent: the Content-Length announces {announced} bytes, but the body has {found}; a file must "
            "stand where its body begins, and must not change while it is sent"
        )


class Frames:
    """Cuts pieces of any length into frames. Each frame but the last is full.

    Args:
        length: how many bytes all pieces have together, or None if nobody knows.
    """

    def __init__(self, length: int | None) -> None:
        self._length = length
        self._seen = 0
        self._rest = bytearray()

    def add(self, piece: bytes) -> Iterator[bytes | memoryview]:
        """Yield the frames that `piece` completes. What may be the last one is kept until there is more.

        Seal each before the next: it may be a view of `piece`.

        Raises:
            TypeError: `piece` is not bytes-like.
            SealedTransportError: there are more bytes than were announced.
        """
        view = memoryview(piece).cast("B")
        self._seen += len(view)
        if self._length is not None and self._seen > self._length:
            raise self._wrong_length("more")
        while len(self._rest) + len(view) > FRAME_PLAINTEXT_BYTES:
            missing = FRAME_PLAINTEXT_BYTES - len(self._rest)
            if self._rest:
                self._rest += view[:missing]
                yield bytes(self._rest)
                self._rest.clear()
            else:
                yield view[:missing]
            view = view[missing:]
        self._rest += view

    def last(self) -> bytes:
        """Return the last frame.

        Raises:
            SealedTransportError: there are fewer bytes than were announced.
        """
        if self._length is not None and self._seen < self._length:
            raise self._wrong_length(f"only {self._seen}")
        return bytes(self._rest)

    def _wrong_length(self, found: str) -> SealedTransportError:
        return SealedTransportError(
            f"the request was cut off: its Content-Length announced {self._length} bytes, but its body has {found}; a "
            "file must not change while it is sent"
        )
