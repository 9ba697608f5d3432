"""Streams that open a response's sealed body while it is read."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, ClassVar, cast

from server_keys._native import FrameTooLargeError, MalformedMessageError

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.own_connection import AsyncOwnConnection, SyncOwnConnection
    from server_keys.client.request_body import AsyncRequestBody, SyncRequestBody
    from server_keys.client.steps import Outcome

_FRAME_LENGTH_BYTES = 4
_GZIP = b"\x1f\x8b"


class Opening:
    """Opens the body of an outcome's response, or passes it on if it is not sealed."""

    response_is_in_cycle: ClassVar[bool] = False
    """Whether the library's clients bind the stream to its response, which refers to it."""
    _handed_out: weakref.ref[http.Response] | None = None

    def __init__(self, outcome: Outcome) -> None:
        self._response = outcome.response
        self._opener = outcome.opener
        self._on_failure = outcome.on_failure
        self._head = b""

    def of(self, response: http.Response) -> http.Response:
        """Note that this is the stream of `response`, and return that."""
        if self.response_is_in_cycle:
            self._handed_out = weakref.ref(response)
        return response

    def _end_cycle(self) -> None:
        """Give a response that is closed this stream again, in place of the one that its client has bound to it.

        Else the response and its body stay in memory until Python's garbage collector comes by, which can be many
        calls later: it counts objects, not bytes.
        """
        response = None if self._handed_out is None else self._handed_out()
        if response is not None and response.is_closed:
            response.stream = cast("http.SyncByteStream | http.AsyncByteStream", self)

    def _opened(self, piece: bytes) -> bytes:
        if self._opener is None:
            return piece
        if len(self._head) < _FRAME_LENGTH_BYTES:
            self._head += piece[: _FRAME_LENGTH_BYTES - len(self._head)]
        try:
            return self._opener.feed(piece)
        except (FrameTooLargeError, MalformedMessageError) as error:
            raise self._with_cause(error) from None

    def _finish(self) -> None:
        if self._opener is None:
            return
        try:
            self._opener.finish()
        except MalformedMessageError as error:
            raise self._with_cause(error) from None

    def _fail(self) -> None:
        if self._on_failure is not None:
            self._on_failure()

    def _erase(self) -> None:
        if self._opener is not None:
            self._opener.erase()

    def _with_cause(self, error: ValueError) -> ValueError:
        """Return `error` with the likely cause, as far as the head of the body and its headers tell it."""
        coding = self._response.headers.get("Content-Encoding", "identity")
        if self._head.startswith(_GZIP):
            cause = (
                f"the body begins as gzip does (Content-Encoding: {coding}), so something on the way has compressed it "
                "after it was sealed: switch that off for this path"
            )
        elif len(self._head) == _FRAME_LENGTH_BYTES and self._head.isascii() and self._head.decode().isprintable():
            cause = f"the body begins with the text {self._head.decode()!r}, so something on the way has replaced it"
        elif coding != "identity":
            cause = f"it has Content-Encoding: {coding}, so something on the way may have compressed it after sealing"
        elif isinstance(error, FrameTooLargeError):
            cause = "max_frame_bytes of the transport sets the limit"
        else:
            return error
        return type(error)(f"{error}: {cause}")


class SyncOpening(Opening):
    """Opens a response's body while it is read. At the end it closes the response, `body` and `own_connection`."""

    def __init__(self, outcome: Outcome, body: SyncRequestBody, own_connection: SyncOwnConnection) -> None:
        super().__init__(outcome)
        self._body = body
        self._own_connection = own_connection

    def __iter__(self) -> Iterator[bytes]:
        """Yield at once what each piece of the sealed body completes."""
        try:
            for piece in cast("http.SyncByteStream", self._response.stream):
                if plaintext := self._opened(piece):
                    yield plaintext
            self._finish()
        except Exception:
            self._fail()
            raise
        finally:
            self.close()

    def close(self) -> None:
        """Wipe the keys, close the response, and send no more of the request."""
        self._erase()
        try:
            self._response.close()
        finally:
            self._body.close()
            self._own_connection.close()
            self._end_cycle()


class AsyncOpening(Opening):
    """Opens a response's body while it is read. At the end it closes the response, `body` and `own_connection`."""

    def __init__(self, outcome: Outcome, body: AsyncRequestBody, own_connection: AsyncOwnConnection) -> None:
        super().__init__(outcome)
        self._body = body
        self._own_connection = own_connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield at once what each piece of the sealed body completes."""
        try:
            async for piece in cast("http.AsyncByteStream", self._response.stream):
                if plaintext := self._opened(piece):
                    yield plaintext
            self._finish()
        except Exception:
            self._fail()
            raise
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Wipe the keys, close the response, and send no more of the request."""
        self._erase()
        try:
            await self._response.aclose()
        finally:
            await self._body.aclose()
            await self._own_connection.aclose()
            self._end_cycle()
