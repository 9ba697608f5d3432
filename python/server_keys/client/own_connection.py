"""A connection of an exchange's own, for servers whose processes have keys of their own.

There a key serves one process, and each connection leads to any of them. In a pool another request may take the
connection over which the key came, so the next one may lead elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.steps import Library

TransportT = TypeVar("TransportT")


class OwnConnection(Generic[TransportT]):
    """A transport of at most one connection, made when it is first needed.

    Args:
        make: makes the transport, or is None if `inner` is to take its place.
        inner: the transport that all exchanges share.
    """

    def __init__(self, make: Callable[[], TransportT] | None, inner: TransportT) -> None:
        self._make = make
        self._inner = inner
        self._made: TransportT | None = None

    @property
    def is_open(self) -> bool:
        """Whether the transport was made and not closed yet."""
        return self._made is not None

    @property
    def transport(self) -> TransportT:
        """The transport for requests that go alone."""
        if self._make is None:
            return self._inner
        if self._made is None:
            self._made = self._make()
        return self._made


class SyncOwnConnection(OwnConnection["http.BaseTransport"]):
    """A transport of at most one connection, made when it is first needed."""

    def close(self) -> None:
        """Close the transport, if it was made."""
        made: http.BaseTransport | None = self._made
        self._made = None
        if made is not None:
            made.close()


class AsyncOwnConnection(OwnConnection["http.AsyncBaseTransport"]):
    """A transport of at most one connection, made when it is first needed."""

    async def aclose(self) -> None:
        """Close the transport, if it was made."""
        made: http.AsyncBaseTransport | None = self._made
        self._made = None
        if made is not None:
            await made.aclose()


def default_transports(
    library: Library, http_transport: Callable[..., TransportT]
) -> tuple[TransportT, Callable[[], TransportT]]:
    """Return the transport that exchanges share if the user gives none, and what makes those of one connection."""
    # Reading the certificates takes longer than everything else, so it is done once.
    context = library.create_ssl_context()
    one = library.Limits(max_connections=1)
    return http_transport(verify=context), partial(http_transport, verify=context, limits=one)
