"""Sealing transports for httpx2."""

from collections.abc import Callable

import httpx2

from server_keys._clock import boot_time
from server_keys._sealing.protocol import DEFAULT_MAX_FRAME_BYTES
from server_keys.client.drivers import (
    AsyncDriver,
    AsyncLifetime,
    AsyncOpening,
    AsyncVerifyKey,
    SyncDriver,
    SyncLifetime,
    SyncOpening,
    VerifyKey,
)


class SealedTransport(SyncLifetime, httpx2.BaseTransport):
    """Seals requests to the server's key and opens the responses: `httpx2.Client(transport=SealedTransport())`.

    Finds the key under `/.well-known/hpke-keys` of each request's origin and keeps it for as long as the server allows.
    When the server refuses it, because it has replaced its keys meanwhile, fetches it anew and tries again, once; for
    that, a request's body is held in memory. Requests without a body, and their responses, travel in plaintext. A
    response that is an error and that nobody sealed is passed on: what it says is not authentic.

    The client's own `proxy=` and `mounts=` go around its transport, and so around the sealing: give them to `inner`.

    Args:
        inner: sends what is sealed; by default a new `httpx2.HTTPTransport`, which this transport's end closes.
        verify_key: called with each public key (32 bytes) that is fetched, before anything is sealed to it, for pinning
            or attestation. To refuse a key it raises an exception, which reaches the caller, or returns anything but
            None and True.
        max_frame_bytes: the longest frame of a response that is taken, from 1 byte to 64 MiB.
        clock: tells the time in seconds.

    Raises:
        TypeError: `max_frame_bytes` is not an int, or `verify_key` no function.
        ValueError: `max_frame_bytes` is out of its range.
    """

    def __init__(
        self,
        inner: httpx2.BaseTransport | None = None,
        *,
        verify_key: VerifyKey | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        inner = httpx2.HTTPTransport() if inner is None else inner
        self._driver = SyncDriver(httpx2, inner, verify_key, max_frame_bytes, clock)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` sealed and return the response, whose body is opened while it is read.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyRejectedError: `verify_key` refused it.
            UnsealedResponseError: the response is a success, but not sealed, a redirect, or an unsealed 422 that is
                too long to be read.
            SealedTransportError: the request asks for another protocol, such as WebSocket: nothing was sent.
            TypeError: it is a request of another library than httpx2.
        """
        response: httpx2.Response = self._driver.exchange(request, _OpeningStream)
        return response


class AsyncSealedTransport(AsyncLifetime, httpx2.AsyncBaseTransport):
    """The same as `SealedTransport` for `httpx2.AsyncClient`. `verify_key` may be a coroutine function.

    Args:
        inner: sends what is sealed; by default a new `httpx2.AsyncHTTPTransport`, which this transport's end closes.
        verify_key: as for `SealedTransport`.
        max_frame_bytes: as for `SealedTransport`.
        clock: as for `SealedTransport`.

    Raises:
        TypeError: `max_frame_bytes` is not an int, or `verify_key` no function.
        ValueError: `max_frame_bytes` is out of its range.
    """

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport | None = None,
        *,
        verify_key: AsyncVerifyKey | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        inner = httpx2.AsyncHTTPTransport() if inner is None else inner
        self._driver = AsyncDriver(httpx2, inner, verify_key, max_frame_bytes, clock)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request` sealed and return the response, whose body is opened while it is read.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyRejectedError: `verify_key` refused it.
            UnsealedResponseError: the response is a success, but not sealed, a redirect, or an unsealed 422 that is
                too long to be read.
            SealedTransportError: the request asks for another protocol, such as WebSocket: nothing was sent.
            TypeError: it is a request of another library than httpx2.
        """
        response: httpx2.Response = await self._driver.exchange(request, _AsyncOpeningStream)
        return response


class _OpeningStream(SyncOpening, httpx2.SyncByteStream):
    pass


class _AsyncOpeningStream(AsyncOpening, httpx2.AsyncByteStream):
    pass
