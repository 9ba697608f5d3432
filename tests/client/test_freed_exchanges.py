"""A response and its request leave memory as soon as nobody holds them.

Python's garbage collector counts objects, not bytes: what waits for it can be many long bodies.
"""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from server_keys.client import MalformedMessageError, SealedTransportError
from tests.helpers.client_flavours import FLAVOURS, Client, Flavour
from tests.helpers.scripted_server import URL, Server
from tests.helpers.scripted_v1_server import V1Server
from tests.helpers.uploads import BODY, PIECES, Streamed

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)
# An exception that leaves a task of asyncio is in a cycle, also without sealing. So is a stream that is left early.
sync_flavours = pytest.mark.parametrize("flavour", [flavour for flavour in FLAVOURS if not flavour.is_async], ids=str)


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    """No garbage collection during a test."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Seen:
    """The responses and requests that a client had, without holding them."""

    def __init__(self, flavour: Flavour, client: Client) -> None:
        self._references: list[weakref.ref[Any]] = []

        def see(response: Any) -> None:
            self._references += [weakref.ref(response), weakref.ref(response.request)]

        async def see_async(response: Any) -> None:
            see(response)

        client.add_hook("response", see_async if flavour.is_async else see)

    def assert_freed(self) -> None:
        assert self._references
        assert [reference() for reference in self._references if reference() is not None] == []


def short(_: Flavour) -> Any:
    return b"x"


def long(_: Flavour) -> Any:
    return BODY


def streamed(flavour: Flavour) -> Any:
    return Streamed(PIECES).of(flavour)


@every_flavour
@pytest.mark.parametrize("content", [short, long, streamed])
def test_after_a_response_that_was_read(flavour: Flavour, server: Server, content: Callable[[Flavour], Any]) -> None:
    with flavour.client(server.inner) as client:
        seen = Seen(flavour, client)
        assert client.request("POST", URL, content=content(flavour)).content == b"sealed answer"
        seen.assert_freed()


@every_flavour
@pytest.mark.parametrize("content", [b"", b"x", BODY])
def test_in_version_1(flavour: Flavour, v1_server: V1Server, content: bytes) -> None:
    with flavour.client(v1_server.inner) as client:
        seen = Seen(flavour, client)
        client.post(URL, content)
        seen.assert_freed()


@sync_flavours
def test_after_a_response_that_was_left_early(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        seen = Seen(flavour, client)
        pieces = client.pieces(URL, "x")
        next(pieces)
        pieces.close()
        del pieces
        seen.assert_freed()


@sync_flavours
def test_after_a_response_that_breaks_off(flavour: Flavour, server: Server) -> None:
    server.answer = lambda opener: server.sealed(opener, lambda frame: frame[:-1])
    with flavour.client(server.inner) as client:
        seen = Seen(flavour, client)
        with pytest.raises(MalformedMessageError):
            client.post(URL, BODY)
        seen.assert_freed()


@sync_flavours
def test_after_a_refused_upload(flavour: Flavour, server: Server) -> None:
    server.answer = lambda _: server.mismatch()
    with flavour.client(server.inner) as client:
        streamed = Streamed(PIECES)
        content = streamed.of(flavour)
        upload = weakref.ref(content)
        with pytest.raises(SealedTransportError, match="cannot be sent again"):
            client.request("POST", URL, content=content)
        del content
        assert upload() is None


@every_flavour
def test_a_response_still_tells_how_long_it_took_and_cannot_be_read_twice(flavour: Flavour, server: Server) -> None:
    with flavour.client(server.inner) as client:
        response = client.post(URL, "x")
        assert response.elapsed.total_seconds() > 0
        assert response.is_closed
        assert response.content == b"sealed answer"
        with pytest.raises(flavour.http.StreamConsumed):
            client.run(response.aiter_raw().__anext__()) if flavour.is_async else next(response.iter_raw())
