"""The sealing transports, once for httpx and httpx2: each library's module binds them to its own types."""

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NoReturn, Self, TypeVar, cast

from server_keys._clock import boot_time
from server_keys._sealing.protocol import DEFAULT_MAX_FRAME_BYTES
from server_keys.client.drivers import AsyncDriver, AsyncStreams, SyncDriver, SyncStreams
from server_keys.client.key_checks import AsyncVerifyAnswer, AsyncVerifyKey, KeyChecks, VerifyAnswer, VerifyKey
from server_keys.client.key_fetch import Key
from server_keys.client.misuse import SealsAlready, refuse_as_client, refuse_use_by, require_inner
from server_keys.client.own_connection import AsyncOwnConnection, SyncOwnConnection, default_transports
from server_keys.client.steps import Library

if TYPE_CHECKING:
    import httpx2 as http

# A library's BaseTransport or AsyncBaseTransport, its Request and its Response.
InnerT = TypeVar("InnerT")
RequestT = TypeVar("RequestT")
ResponseT = TypeVar("ResponseT")


class SyncSealedTransport(SealsAlready, Generic[InnerT, RequestT, ResponseT]):
    """Seals requests to the server's key and opens the responses: `Client(transport=SealedTransport())`.

    Where the server's key answer offers version 1 of the wire, everything is sealed in it: method, target and status,
    requests without a body, and the end of each body, to a key that outlasts quantum computers. Elsewhere bodies are
    sealed as plain EHBP.

    It finds the key under `/.well-known/hpke-keys` of each request's origin and keeps it for as long as the server
    allows. When the server refuses the key because it has replaced its keys since, the transport fetches it anew and
    sends the request again, once, or up to nine times if it waits so long for a connection that its key is over each
    time. If that is refused, too, the address may stand for several processes with keys of their own: the transport
    fetches the key over a new connection and sends the request over the same, up to three times.

    Bodies are read and sealed while they are sent, frame by frame. One of more than 64 KiB that can be read only once,
    such as a generator, cannot be sent again: the transport asks for the server's key first. In plain EHBP requests
    without a body travel in plaintext, and so do their responses. An error that is not sealed is passed on: its content
    is not authentic.

    The client's own `proxy=` and `mounts=` go around its transport, and so around the sealing: give them to `inner`.
    """

    library: ClassVar[Library]
    _stream_types: ClassVar[tuple[type[Any], type[Any]]]

    def __init__(
        self,
        inner: InnerT | None = None,
        *,
        verify_key: VerifyKey | None = None,
        verify_answer: VerifyAnswer | None = None,
        require_v1: bool = False,
        identity: str | Iterable[str] | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        clock: Callable[[], float] = boot_time,
        key_url: str | None = None,
        one_connection: Callable[[], InnerT] | None = None,
    ) -> None:
        """Make a transport with no keys yet.

        Args:
            inner: sends what is sealed. By default a new `HTTPTransport`. It is closed with this transport.
            verify_key: called with each X25519 key (32 bytes) that is fetched, before anything is sealed to it, for
                pinning or attestation. To refuse a key it raises an exception, which reaches the caller, or returns
                anything but None and True. Version 1 seals to another key, so without `verify_answer` everything is
                sealed as plain EHBP then, and the log says so once.
            verify_answer: called with each key answer that is fetched: with all its bytes, and the URL that it came
                from (a str). It refuses as `verify_key` does.
            require_v1: whether servers that do not offer version 1 are refused.
            identity: the server's identity, as `server-keys identity new` printed it (`ed25519:...`), or several while
                one replaces another. A key answer that none of them signed, or not for this time, is refused before
                anything is sent. Clocks may be 60 s apart.
            max_frame_bytes: the longest frame that a response may have, from 64 KiB + 16 bytes to 64 MiB, tag included.
            clock: tells the time in seconds.
            key_url: where the server publishes its key, for a server behind a gateway that routes by path: an absolute
                path, which is looked up at each request's origin, or an absolute URL. With a URL this transport serves
                one origin, that of the first request it seals. By default `/.well-known/hpke-keys`.
            one_connection: makes a transport like `inner` that has one connection at most, for a request that was
                refused twice. By default such a request goes through `inner` again, or, if that is omitted, too,
                through a new `HTTPTransport`.

        Raises:
            TypeError: an argument has the wrong type, or `require_v1` comes with `verify_key` alone.
            ValueError: `max_frame_bytes` is out of its range, `key_url` is neither a path nor a URL, or `identity` is
                no identity.
        """
        checks = KeyChecks(verify_key, verify_answer, require_v1=require_v1, identity=identity)
        self._one_connection = cast("Callable[[], http.BaseTransport] | None", one_connection)
        self._inner: http.BaseTransport
        if inner is None:
            self._inner, of_default = default_transports(self.library, self.library.HTTPTransport)
            self._one_connection = self._one_connection or of_default
        else:
            self._inner = self._checked(inner)
        self._streams = SyncStreams(*self._stream_types)
        self._driver = SyncDriver(self.library, checks, max_frame_bytes, clock, key_url)

    def handle_request(self, request: RequestT) -> ResponseT:
        """Send `request` sealed and return the response. Its body is opened while it is read.

        Args:
            request: a request of the library that this transport is for.

        Returns:
            The response, whose body is plaintext.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyRejectedError: the key answer is not signed by `identity`, or `verify_key` or `verify_answer` refused it.
            UnsealedResponseError: the response is an unsealed success, redirects a body, has a header that the server
                did not make for this request, or is an unsealed refusal that is too long to be read.
            StatusMismatchError: the response arrived with another status than the server sealed.
            SealedTransportError: the request asks for another protocol, such as WebSocket, and nothing was sent; or its
                body can be read only once and the server refused its key; or its body has another length than its
                headers say, and was cut off.
            TypeError: the request is of another library, or its body yields something else than bytes.
        """
        own = cast("http.Request", request)
        self._driver.require_own(own)
        own_connection = SyncOwnConnection(self._one_connection, self._inner)
        response = self._driver.exchange(self._inner, own_connection, own, self._streams)
        return cast("ResponseT", response)

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    async def handle_async_request(self, request: RequestT) -> NoReturn:
        """Raise a `TypeError`: an async client needs an `AsyncSealedTransport`."""
        refuse_use_by("AsyncClient", self)

    async def __aenter__(self) -> NoReturn:
        refuse_use_by("AsyncClient", self)

    async def __aexit__(self, *_: object) -> None: ...

    async def aclose(self) -> None:
        """Close the inner transport, for an async client that could not use this one."""
        self._inner.close()

    def _checked(self, inner: InnerT) -> "http.BaseTransport":
        require_inner(inner, self.library, is_async=False)
        return cast("http.BaseTransport", inner)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            refuse_as_client(self, name)


class AsyncSealedTransport(SealsAlready, Generic[InnerT, RequestT, ResponseT]):
    """Seals requests and opens responses as `SealedTransport` does: `AsyncClient(transport=AsyncSealedTransport())`."""

    library: ClassVar[Library]
    _stream_types: ClassVar[tuple[type[Any], type[Any]]]

    def __init__(
        self,
        inner: InnerT | None = None,
        *,
        verify_key: AsyncVerifyKey | None = None,
        verify_answer: AsyncVerifyAnswer | None = None,
        require_v1: bool = False,
        identity: str | Iterable[str] | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        clock: Callable[[], float] = boot_time,
        key_url: str | None = None,
        one_connection: Callable[[], InnerT] | None = None,
    ) -> None:
        """Make a transport with no keys yet.

        Args:
            inner: sends what is sealed. By default a new `AsyncHTTPTransport`. It is closed with this transport.
            verify_key: as for `SealedTransport`, and may be a coroutine function.
            verify_answer: as for `SealedTransport`, and may be a coroutine function.
            require_v1: as for `SealedTransport`.
            identity: as for `SealedTransport`.
            max_frame_bytes: as for `SealedTransport`.
            clock: as for `SealedTransport`.
            key_url: as for `SealedTransport`.
            one_connection: as for `SealedTransport`.

        Raises:
            TypeError: an argument has the wrong type, or `require_v1` comes with `verify_key` alone.
            ValueError: `max_frame_bytes` is out of its range, `key_url` is neither a path nor a URL, or `identity` is
                no identity.
        """
        checks = KeyChecks(verify_key, verify_answer, require_v1=require_v1, identity=identity)
        self._one_connection = cast("Callable[[], http.AsyncBaseTransport] | None", one_connection)
        self._inner: http.AsyncBaseTransport
        if inner is None:
            self._inner, of_default = default_transports(self.library, self.library.AsyncHTTPTransport)
            self._one_connection = self._one_connection or of_default
        else:
            self._inner = self._checked(inner)
        self._streams = AsyncStreams(*self._stream_types)
        self._driver = AsyncDriver(self.library, checks, max_frame_bytes, clock, key_url)

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        """Send `request` sealed and return the response. Its body is opened while it is read.

        Args:
            request: a request of the library that this transport is for.

        Returns:
            The response, whose body is plaintext.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyRejectedError: the key answer is not signed by `identity`, or `verify_key` or `verify_answer` refused it.
            UnsealedResponseError: the response is an unsealed success, redirects a body, has a header that the server
                did not make for this request, or is an unsealed refusal that is too long to be read.
            StatusMismatchError: the response arrived with another status than the server sealed.
            SealedTransportError: the request asks for another protocol, such as WebSocket, and nothing was sent; or its
                body can be read only once and the server refused its key; or its body has another length than its
                headers say, and was cut off.
            TypeError: the request is of another library, or its body yields something else than bytes.
        """
        own = cast("http.Request", request)
        self._driver.require_own(own)
        own_connection = AsyncOwnConnection(self._one_connection, self._inner)
        response = await self._driver.exchange(self._inner, own_connection, own, self._streams)
        return cast("ResponseT", response)

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    def handle_request(self, request: RequestT) -> NoReturn:
        """Raise a `TypeError`: a sync client needs a `SealedTransport`."""
        refuse_use_by("Client", self)

    def __enter__(self) -> NoReturn:
        refuse_use_by("Client", self)

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None:
        """Do nothing: a sync client that could not use this transport has opened nothing."""

    def _checked(self, inner: InnerT) -> "http.AsyncBaseTransport":
        require_inner(inner, self.library, is_async=True)
        return cast("http.AsyncBaseTransport", inner)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            refuse_as_client(self, name)


async def fetch_key(transport: AsyncSealedTransport[Any, Any, Any], request: "http.Request") -> int | None:
    """Fetch and check the key that `request` would be sealed to, unless it is known. The request itself is not sent.

    Args:
        transport: the transport that would send it.
        request: a request of the transport's library.

    Returns:
        None if there is a key; the status of the answer if the server or a gateway asks to come back later.

    Raises:
        KeyConfigurationError, KeyRejectedError, SealedTransportError: as `handle_async_request` does.
    """
    own_connection = AsyncOwnConnection(None, transport._inner)
    found = await transport._driver.key(transport._inner, own_connection, request)
    if isinstance(found, Key):
        return None
    await found.aclose()
    return found.status_code
