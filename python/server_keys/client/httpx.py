"""Sealing transports for httpx, the HTTP client of the OpenAI SDK before 3 and of many others."""

from typing import ClassVar, cast

import httpx

from server_keys.client import opening, transports
from server_keys.client.steps import Library


class _Stream(opening.SyncOpening, httpx.SyncByteStream):
    pass


class _AsyncStream(opening.AsyncOpening, httpx.AsyncByteStream):
    pass


class SealedTransport(  # noqa: D101 - it has its base's docstring
    transports.SyncSealedTransport[httpx.BaseTransport, httpx.Request, httpx.Response], httpx.BaseTransport
):
    __doc__ = transports.SyncSealedTransport.__doc__
    _library: ClassVar[Library] = cast("Library", httpx)
    _stream_type = _Stream


class AsyncSealedTransport(  # noqa: D101 - it has its base's docstring
    transports.AsyncSealedTransport[httpx.AsyncBaseTransport, httpx.Request, httpx.Response],
    httpx.AsyncBaseTransport,
):
    __doc__ = transports.AsyncSealedTransport.__doc__
    _library: ClassVar[Library] = cast("Library", httpx)
    _stream_type = _AsyncStream
