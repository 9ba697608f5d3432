"""A request's body, which is read and sealed while it is sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from typing import TYPE_CHECKING, cast

from server_keys._sealing.protocol import FRAME_PLAINTEXT_BYTES, sealed_length
from server_keys.client.body_headers import delimits_a_body, framing_of
from server_keys.client.framing import Frames, require_length
from server_keys.client.sealing import AsyncSealing, Sealing, SyncSealing
from server_keys.client.sources import Source, source_of

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.body_headers import Framing
    from server_keys.client.steps import Library
    from server_keys.client.wires import Sealed

    class SyncSealedStream(SyncSealing, http.SyncByteStream):
        """A library's stream that seals a body while it is sent."""

    class AsyncSealedStream(AsyncSealing, http.AsyncByteStream):
        """A library's stream that seals a body while it is sent."""


class RequestBody:
    """The body of one request.

    `read_ahead` comes first. It reads a little more than one frame. A body that ends there is in memory then, whatever
    it comes from. Longer ones are read while they are sent, if they were not in memory before.

    Args:
        library: httpx or httpx2.
        request: the request.
    """

    _sealing: Sealing | None = None

    def __init__(self, library: Library, request: http.Request) -> None:
        self._library = library
        self._request = request
        self._content: bytes | None = None
        self._source = Source(None, None)
        self._head: list[bytes] = []
        self._head_bytes = 0
        if isinstance(request.stream, library.ByteStream):
            self._content = request.read()
        else:
            self._source = source_of(library, request)

    @property
    def is_empty(self) -> bool:
        """Whether there is no body."""
        return self._content == b""

    @property
    def can_repeat(self) -> bool:
        """Whether it can be sent again."""
        return self._content is not None or self._source.rewind is not None

    @property
    def length(self) -> int | None:
        """How many bytes it has, or None if nobody knows."""
        return self._source.length if self._content is None else len(self._content)

    def framing(self, sealed: Sealed) -> Framing | None:
        """Return the header that delimits the sealed body, or None if there is neither a body nor such a header."""
        if self.is_empty:
            return framing_of(0) if delimits_a_body(self._request.headers) else None
        return framing_of(None if self.length is None else sealed_length(self.length) + sealed.end_bytes)

    @property
    def is_on_its_way(self) -> bool:
        """Whether a part of it is still to be sealed."""
        return self._sealing is not None and not self._sealing.has_ended

    def sealed_by(self, sealed: Sealed) -> http.SyncByteStream | http.AsyncByteStream:
        """Return the stream to send. A body that can be repeated is read from its beginning each time."""
        raise NotImplementedError

    def _in_one_frame(self, sealed: Sealed) -> http.ByteStream | None:
        """Return the stream of a body that is in memory and fits into one frame, or is none at all."""
        if self._content is None or len(self._content) > FRAME_PLAINTEXT_BYTES:
            return None
        return self._library.ByteStream(sealed.seal_last(self._content) if self._content else b"")

    def _is_enough_ahead(self, piece: bytes) -> bool:
        """Keep `piece`, and return whether no more is to be read ahead."""
        # A generator may use another buffer than bytes again.
        self._head.append(piece if type(piece) is bytes else bytes(memoryview(piece)))
        self._head_bytes += len(self._head[-1])
        return self._head_bytes > FRAME_PLAINTEXT_BYTES

    def _keep_whole(self) -> None:
        """Keep what was read ahead as the body.

        Raises:
            SealedTransportError: it has another length than was announced.
        """
        require_length(self._source.length, self._head_bytes)
        self._content = b"".join(self._head)
        self._head = []
        # If there is no body, the request is sent as it is, and its stream cannot be read any more.
        self._request.stream = self._library.ByteStream(self._content)

    def _rewind(self) -> None:
        if self._source.rewind is not None:
            self._source.rewind()


class SyncRequestBody(RequestBody):
    """The body of one request of a sync client.

    Args:
        library: httpx or httpx2.
        request: the request.
        stream_type: the library's stream that seals.
    """

    _sealing: SyncSealedStream | None = None

    def __init__(self, library: Library, request: http.Request, stream_type: type[SyncSealedStream]) -> None:
        super().__init__(library, request)
        self._stream_type = stream_type
        self._rest: Iterator[bytes] | None = None

    def read_ahead(self) -> None:
        """Read the first frame, and what comes with it."""
        if self._content is None:
            self._rest = iter(cast("http.SyncByteStream", self._request.stream))
            if not any(self._is_enough_ahead(piece) for piece in self._rest):
                self._keep_whole()

    def sealed_by(self, sealed: Sealed) -> http.SyncByteStream:
        """Return the stream to send. A body that can be repeated is read from its beginning each time."""
        if (short := self._in_one_frame(sealed)) is not None:
            return short
        self._sealing = self._stream_type(self._library, sealed, Frames(self.length), self._pieces)
        return self._sealing

    def close(self) -> None:
        """Send no more of it, and wipe the keys that seal it."""
        sealing, self._sealing = self._sealing, None  # they refer to each other
        if sealing is not None:
            sealing.end()
        rest = self._take_rest()[1]
        if isinstance(rest, Generator):
            rest.close()

    def _take_rest(self) -> tuple[list[bytes], Iterator[bytes] | None]:
        """Return what was read ahead, and what reads on, if it is still being read for the first time."""
        head, self._head = self._head, []
        rest, self._rest = self._rest, None
        return head, rest

    def _pieces(self) -> Generator[bytes]:
        if self._content is not None:
            yield self._content
            return
        head, rest = self._take_rest()
        if rest is None:
            self._rewind()
            rest = iter(cast("http.SyncByteStream", self._request.stream))
        yield from head
        yield from rest


class AsyncRequestBody(RequestBody):
    """The body of one request of an async client.

    Args:
        library: httpx or httpx2.
        request: the request.
        stream_type: the library's stream that seals.
    """

    _sealing: AsyncSealedStream | None = None

    def __init__(self, library: Library, request: http.Request, stream_type: type[AsyncSealedStream]) -> None:
        super().__init__(library, request)
        self._stream_type = stream_type
        self._rest: AsyncIterator[bytes] | None = None

    async def read_ahead(self) -> None:
        """Read the first frame, and what comes with it."""
        if self._content is None:
            self._rest = aiter(cast("http.AsyncByteStream", self._request.stream))
            async for piece in self._rest:
                if self._is_enough_ahead(piece):
                    return
            self._keep_whole()

    def sealed_by(self, sealed: Sealed) -> http.AsyncByteStream:
        """Return the stream to send. A body that can be repeated is read from its beginning each time."""
        if (short := self._in_one_frame(sealed)) is not None:
            return short
        self._sealing = self._stream_type(self._library, sealed, Frames(self.length), self._pieces)
        return self._sealing

    async def aclose(self) -> None:
        """Send no more of it, and wipe the keys that seal it."""
        sealing, self._sealing = self._sealing, None  # they refer to each other
        if sealing is not None:
            await sealing.end()
        rest = self._take_rest()[1]
        if isinstance(rest, AsyncGenerator):
            await rest.aclose()

    def _take_rest(self) -> tuple[list[bytes], AsyncIterator[bytes] | None]:
        """Return what was read ahead, and what reads on, if it is still being read for the first time."""
        head, self._head = self._head, []
        rest, self._rest = self._rest, None
        return head, rest

    async def _pieces(self) -> AsyncGenerator[bytes]:
        if self._content is not None:
            yield self._content
            return
        head, rest = self._take_rest()
        if rest is None:
            self._rewind()
            rest = aiter(cast("http.AsyncByteStream", self._request.stream))
        try:
            for piece in head:
                yield piece
            async for piece in rest:
                yield piece
        finally:
            if isinstance(rest, AsyncGenerator):
                await rest.aclose()
