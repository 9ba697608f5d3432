"""Bodies that are read while they are sent, and inner transports that read them frame by frame."""

import gc
import io
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import httpx

from server_keys._native import RequestOpener, ResponseSealer
from tests.helpers.client_flavours import Flavour
from tests.helpers.scripted_server import Server

FRAME = 64 * 1024
"""How many bytes of a body are sealed together."""
BODY = "".join(f"{number:07}\n" for number in range(40_000)).encode()
"""A body of several frames, no two of them equal."""
PIECES = [BODY[start : start + 1000] for start in range(0, len(BODY), 1000)]


class Streamed:
    """A body that can be read once, and what happens to it."""

    def __init__(self, pieces: Iterable[Any], error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error
        self.read = 0
        self._is_closed = False
        self._generator: Callable[[], object] = lambda: None

    def of(self, flavour: Flavour) -> Any:
        """Return it as a generator of the kind that the flavour's clients take."""
        generator = self._async() if flavour.is_async else self._sync()
        self._generator = weakref.ref(generator)
        return generator

    def assert_let_go(self, flavour: Flavour) -> None:
        """Fail if the generator has not ended. httpx never closes one: there it is enough that nobody holds it."""
        if flavour.http is httpx and not self._is_closed:
            gc.collect()
            assert self._generator() is None
        else:
            assert self._is_closed

    def _sync(self) -> Iterator[Any]:
        try:
            for piece in self._pieces:
                self.read += 1
                yield piece
            if self._error is not None:
                raise self._error
        finally:
            self._is_closed = True

    async def _async(self) -> AsyncIterator[Any]:
        for piece in self._sync():
            yield piece


class Unseekable(io.BytesIO):
    """A file that cannot go back, such as a pipe."""

    def seekable(self) -> bool:
        return False

    def seek(self, *_: object) -> int:
        raise io.UnsupportedOperation("a pipe")

    def tell(self) -> int:
        raise io.UnsupportedOperation("a pipe")


def inner_that_reads(
    flavour: Flavour,
    handle: Callable[[Any], Any],
    on_frame: Callable[[list[bytes]], None] = lambda _: None,
    most_frames: Callable[[], int | None] = lambda: None,
) -> Any:
    """Return an inner transport that reads a request frame by frame, as those do that have a network below them.

    Args:
        flavour: the library, sync or async.
        handle: makes the response of the request, of which what was read is the content.
        on_frame: is called after each frame with those of this request so far.
        most_frames: how many are read of one request at most, or None for all of them.
    """

    def is_enough(frames: list[bytes]) -> bool:
        on_frame(frames)
        return len(frames) == most_frames()

    def answer(request: Any, frames: list[bytes]) -> Any:
        request.stream = flavour.http.ByteStream(b"".join(frames))
        request.read()
        return handle(request)

    class SyncInner(flavour.http.BaseTransport):  # type: ignore[misc, name-defined]
        def handle_request(self, request: Any) -> Any:
            frames: list[bytes] = []
            for frame in request.stream:
                frames.append(frame)
                if is_enough(frames):
                    break
            return answer(request, frames)

    class AsyncInner(flavour.http.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            frames: list[bytes] = []
            async for frame in request.stream:
                frames.append(frame)
                if is_enough(frames):
                    break
            return answer(request, frames)

    return AsyncInner() if flavour.is_async else SyncInner()


def inner_that_answers_early(flavour: Flavour, server: Server, received: list[bytes]) -> Any:
    """Return an inner transport that answers after the first frame, and reads the others between two pieces.

    Args:
        flavour: the library, sync or async.
        server: opens what is sealed.
        received: gets what was opened.
    """

    def begin(request: Any, frame: bytes) -> tuple[RequestOpener, ResponseSealer]:
        opener = RequestOpener(bytes.fromhex(request.headers["Ehbp-Encapsulated-Key"]), [server.key_pair])
        received.append(opener.feed(frame))
        return opener, opener.response_sealer()

    def response(sealer: ResponseSealer, stream: Any) -> Any:
        headers = {"Ehbp-Response-Nonce": sealer.response_nonce.hex()}
        return flavour.http.Response(200, headers=headers, stream=stream)

    class SyncAnswer(flavour.http.SyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, frames: Any, opener: RequestOpener, sealer: ResponseSealer) -> None:
            self._frames, self._opener, self._sealer = frames, opener, sealer

        def __iter__(self) -> Iterator[bytes]:
            yield self._sealer.seal(b"early")
            received.extend(self._opener.feed(frame) for frame in self._frames)
            yield self._sealer.seal(b" answer")

    class AsyncAnswer(flavour.http.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, frames: Any, opener: RequestOpener, sealer: ResponseSealer) -> None:
            self._frames, self._opener, self._sealer = frames, opener, sealer

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield self._sealer.seal(b"early")
            received.extend([self._opener.feed(frame) async for frame in self._frames])
            yield self._sealer.seal(b" answer")

    class Inner(type(server.inner)):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            if request.method == "GET":
                return super().handle_request(request)
            frames = iter(request.stream)
            opener, sealer = begin(request, next(frames))
            return response(sealer, SyncAnswer(frames, opener, sealer))

        async def handle_async_request(self, request: Any) -> Any:
            if request.method == "GET":
                return await super().handle_async_request(request)
            frames = aiter(request.stream)
            opener, sealer = begin(request, await anext(frames))
            return response(sealer, AsyncAnswer(frames, opener, sealer))

    return Inner(server.handle)
