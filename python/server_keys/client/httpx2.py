"""Sealing transports for httpx2, the HTTP client of the OpenAI SDK 3."""

from typing import ClassVar

import httpx2

from server_keys.client import opening, transports
from server_keys.client.steps import Library


class _Stream(opening.SyncOpening, httpx2.SyncByteStream):
    pass


class _AsyncStream(opening.AsyncOpening, httpx2.AsyncByteStream):
    pass


class SealedTransport(  # noqa: D101 - it has its base's docstring
    transports.SyncSealedTransport[httpx2.BaseTransport, httpx2.Request, httpx2.Response], httpx2.BaseTransport
):
    __doc__ = transports.SyncSealedTransport.__doc__
    _library: ClassVar[Library] = httpx2
    _stream_type = _Stream


class AsyncSealedTransport(  # noqa: D101 - it has its base's docstring
    transports.AsyncSealedTransport[httpx2.AsyncBaseTransport, httpx2.Request, httpx2.Response],
    httpx2.AsyncBaseTransport,
):
    __doc__ = transports.AsyncSealedTransport.__doc__
    _library: ClassVar[Library] = httpx2
    _stream_type = _AsyncStream
