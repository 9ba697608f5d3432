"""How a body is cut into what is sealed at once: one frame, or several of those that are at hand."""

from __future__ import annotations

from collections.abc import Iterator

from server_keys._sealing.protocol import AT_ONCE_BYTES, FRAME_PLAINTEXT_BYTES
from server_keys.errors import SealedTransportError


def require_length(announced: int | None, found: int) -> None:
    """Raise a `SealedTransportError` if a body that is not sent yet has another length than was announced."""
    if announced is not None and found != announced:
        raise SealedTransportError(
            f"nothing was sent: the Content-Length announces {announced} bytes, but the body has {found}; a file must "
            "stand where its body begins, and must not change while it is sent"
        )


class Frames:
    """Cuts pieces of any length into parts, which are whole frames. Each frame but the last is full.

    Args:
        length: how many bytes all pieces have together, or None if nobody knows.
    """

    def __init__(self, length: int | None) -> None:
        self._length = length
        self._seen = 0
        self._rest: bytearray | memoryview = bytearray()

    def add(self, piece: bytes) -> Iterator[bytes | memoryview]:
        """Yield the parts that `piece` completes. What may belong to the last one is kept until there is more.

        Seal each before the next: it may be a view of `piece`.

        Raises:
            TypeError: `piece` is not bytes-like.
            SealedTransportError: there are more bytes than were announced.
        """
        view = memoryview(piece).cast("B")
        self._seen += len(view)
        if self._length is not None and self._seen > self._length:
            raise self._wrong_length("more")
        if self._rest:
            missing = FRAME_PLAINTEXT_BYTES - len(self._rest)
            if len(view) <= missing:
                self._rest = _longer(self._rest, view)
                return
            yield b"".join((self._rest, view[:missing]))
            view = view[missing:]
        # Of a body that is at hand to its end, nothing waits for more.
        most_kept = AT_ONCE_BYTES if self._seen == self._length else FRAME_PLAINTEXT_BYTES
        while len(view) > most_kept:
            whole_frames = (len(view) - 1) // FRAME_PLAINTEXT_BYTES * FRAME_PLAINTEXT_BYTES
            part = view[: min(whole_frames, AT_ONCE_BYTES)]
            yield part
            view = view[len(part) :]
        # A view keeps all of the piece, which is only good where it is short or the last one; and a generator may use
        # another buffer than bytes again.
        is_lasting = type(piece) is bytes and (len(piece) <= AT_ONCE_BYTES or self._seen == self._length)
        self._rest = view if is_lasting else bytearray(view)

    def last(self) -> bytes | memoryview:
        """Return the last part.

        Raises:
            SealedTransportError: there are fewer bytes than were announced.
        """
        if self._length is not None and self._seen < self._length:
            raise self._wrong_length(f"only {self._seen}")
        # A view would keep a long body for as long as this object lives.
        rest, self._rest = self._rest, bytearray()
        return rest if isinstance(rest, memoryview) else bytes(rest)

    def _wrong_length(self, found: str) -> SealedTransportError:
        return SealedTransportError(
            f"the request was cut off: its Content-Length announced {self._length} bytes, but its body has {found}; a "
            "file must not change while it is sent"
        )


def _longer(rest: bytearray | memoryview, more: memoryview) -> bytearray:
    if not isinstance(rest, bytearray):
        rest = bytearray(rest)
    rest += more
    return rest
