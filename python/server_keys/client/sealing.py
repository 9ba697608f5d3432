"""Streams that seal a request's body while it is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, cast

from server_keys.client.framing import Frames

if TYPE_CHECKING:
    from types import AsyncGeneratorType, GeneratorType

    from server_keys.client.steps import Library
    from server_keys.client.wires import Sealed


class Sealing:
    """Seals a body, once.

    Args:
        library: httpx or httpx2.
        sealer: seals it.
        frames: cuts it into frames.
    """

    def __init__(self, library: Library, sealer: Sealed, frames: Frames) -> None:
        self.has_ended = False
        self._library = library
        self._sealer = sealer
        self._frames = frames

    def _require_unread(self, sealed: object) -> None:
        """Raise the library's `StreamConsumed` if there is a `sealed` body already: a frame is never sealed twice."""
        if sealed is not None:
            raise self._library.StreamConsumed


class SyncSealing(Sealing):
    """Seals a body while it is read, once."""

    def __init__(
        self, library: Library, sealer: Sealed, frames: Frames, pieces: Callable[[], Generator[bytes]]
    ) -> None:
        super().__init__(library, sealer, frames)
        self._pieces = pieces
        self._sealed: GeneratorType[bytes, None, None] | None = None

    def __iter__(self) -> Iterator[bytes]:
        """Yield frames as soon as more than them was read."""
        self._require_unread(self._sealed)
        self._sealed = cast("GeneratorType[bytes, None, None]", self._seal())
        return self._sealed

    def end(self) -> None:
        """Wipe the keys, and read no more of the body."""
        self._sealer.erase()
        # If somebody else is sending it just now, the next frame fails.
        if self._sealed is not None and not self._sealed.gi_running:
            self._sealed.close()

    def _seal(self) -> Generator[bytes]:
        try:
            with closing(self._pieces()) as pieces:
                for piece in pieces:
                    # Without a name for a part: that would hold a view of the piece, whose owner may resize it.
                    yield from map(self._sealer.seal, self._frames.add(piece))
            yield self._sealer.seal_last(self._frames.last())
        finally:
            self.has_ended = True


class AsyncSealing(Sealing):
    """Seals a body while it is read, once."""

    def __init__(
        self, library: Library, sealer: Sealed, frames: Frames, pieces: Callable[[], AsyncGenerator[bytes]]
    ) -> None:
        super().__init__(library, sealer, frames)
        self._pieces = pieces
        self._sealed: AsyncGeneratorType[bytes, None] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield frames as soon as more than them was read."""
        self._require_unread(self._sealed)
        self._sealed = cast("AsyncGeneratorType[bytes, None]", self._seal())
        return self._sealed

    async def end(self) -> None:
        """Wipe the keys, and read no more of the body."""
        self._sealer.erase()
        # If somebody else is sending it just now, the next frame fails.
        if self._sealed is not None and not self._sealed.ag_running:
            await self._sealed.aclose()

    async def _seal(self) -> AsyncGenerator[bytes]:
        try:
            async with aclosing(self._pieces()) as pieces:
                async for piece in pieces:
                    # As above.
                    for sealed in map(self._sealer.seal, self._frames.add(piece)):
                        yield sealed
            yield self._sealer.seal_last(self._frames.last())
        finally:
            self.has_ended = True
