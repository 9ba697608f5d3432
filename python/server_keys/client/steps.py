"""The steps that a driver, sync or async, carries out for an exchange, and the part of a library that both need.

httpx and httpx2 have the same types by the same names, so httpx2's stand for both here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import ssl

    import httpx2 as http

    from server_keys.client.key_checks import Check
    from server_keys.client.key_fetch import KeyFetch
    from server_keys.client.wires import Opener


class Library(Protocol):
    """The part of httpx, or of httpx2, that sealing needs."""

    __name__: str
    AsyncBaseTransport: type[http.AsyncBaseTransport]
    AsyncClient: type[http.AsyncClient]
    AsyncHTTPTransport: type[http.AsyncHTTPTransport]
    BaseTransport: type[http.BaseTransport]
    ByteStream: type[http.ByteStream]
    Client: type[http.Client]
    Headers: type[http.Headers]
    HTTPTransport: type[http.HTTPTransport]
    Limits: type[http.Limits]
    Request: type[http.Request]
    Response: type[http.Response]
    StreamConsumed: type[http.StreamConsumed]
    Timeout: type[http.Timeout]
    TransportError: type[http.TransportError]
    URL: type[http.URL]

    @property
    def create_ssl_context(self) -> Callable[..., ssl.SSLContext]:
        """Makes a TLS context of `verify`, `cert` and `trust_env`."""


class Send(NamedTuple):
    """Send a request. The result is the response with its body not read.

    `is_alone` asks for a connection that no other exchange uses, the same for all such requests of this one.
    """

    request: http.Request
    is_alone: bool = False


class Read(NamedTuple):
    """Read a response's body and close the response. The result is the body, or None if it exceeds `most_bytes`."""

    response: http.Response
    most_bytes: int


class Close(NamedTuple):
    """Close a response, or the body of the request."""

    # A Response, or a SyncRequestBody or AsyncRequestBody: each driver calls the method that its kind has.
    closed: Any


class Verify(NamedTuple):
    """Ask a check of the user's. The result is what it returned."""

    check: Check


class Wait(NamedTuple):
    """Wait for somebody else's fetch. The result is its key, or None if it failed or takes longer than `timeout_s`."""

    fetch: KeyFetch
    timeout_s: float


class Outcome(NamedTuple):
    """A response, and what opens its body.

    `opener` is None for a response that passes through unchanged. `on_failure` is called when a body breaks off or
    cannot be opened.
    """

    response: http.Response
    opener: Opener | None = None
    on_failure: Callable[[], None] | None = None


Step = Send | Read | Close | Verify | Wait
ResultT = TypeVar("ResultT")
# Each kind of step has a result of its own type, but a generator has one type for everything that is sent into it.
Steps = Generator[Step, Any, ResultT]
