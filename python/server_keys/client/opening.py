"""Streams that open a response's sealed body while it is read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys._native import ResponseOpener


class Opening:
    """Opens the body of `response` with `opener`."""

    def __init__(self, response: http.Response, opener: ResponseOpener) -> None:
        self._response = response
        self._opener = opener


class SyncOpening(Opening):
    """Opens a response's body while it is read, and closes the response at the end."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield at once what each piece of the sealed body completes."""
        try:
            for piece in cast("http.SyncByteStream", self._response.stream):
                if plaintext := self._opener.feed(piece):
                    yield plaintext
            self._opener.finish()
        finally:
            self._response.close()

    def close(self) -> None:
        """Close the response."""
        self._response.close()


class AsyncOpening(Opening):
    """Opens a response's body while it is read, and closes the response at the end."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield at once what each piece of the sealed body completes."""
        try:
            async for piece in cast("http.AsyncByteStream", self._response.stream):
                if plaintext := self._opener.feed(piece):
                    yield plaintext
            self._opener.finish()
        finally:
            await self._response.aclose()

    async def aclose(self) -> None:
        """Close the response."""
        await self._response.aclose()
