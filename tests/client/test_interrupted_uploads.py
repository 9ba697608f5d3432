"""Uploads that end in the middle: the server never takes them for whole, and nothing stays open."""

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request

from server_keys import protect
from server_keys.client import KeyConfigurationError, SealedTransportError
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.scripted_server import URL, Server
from tests.helpers.servers import PLAIN, STANDARD, Stack, running
from tests.helpers.uploads import BODY, FRAME, PIECES, Streamed, inner_that_reads

every_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


class BrokenSourceError(Exception):
    """The error of a user's generator."""


class Receiving:
    """An app that says which bodies it received whole."""

    def __init__(self) -> None:
        self.app = FastAPI()
        self.whole: list[int] = []
        self.began = 0
        self.ended = 0

        @self.app.post("/upload")
        async def upload(request: Request) -> None:
            self.began += 1
            try:
                self.whole.append(len(await request.body()))
            finally:
                self.ended += 1

        protect(self.app)

    def assert_whole(self, *lengths: int) -> None:
        """Fail unless these bodies were received whole, once all have ended."""
        until = time.monotonic() + 10
        while self.ended < self.began:
            assert time.monotonic() < until, "an upload is still open"
            time.sleep(0.01)
        assert self.whole == list(lengths)


@pytest.fixture
def receiving() -> Receiving:
    """The app that receives."""
    return Receiving()


@pytest.fixture(params=[PLAIN, STANDARD], ids=str)
def receiver(receiving: Receiving, request: pytest.FixtureRequest) -> Iterator[str]:
    """The app's URL."""
    stack: Stack = request.param
    with running(receiving.app, stack) as url:
        yield url


class Changing(io.BytesIO):
    """A file that somebody changes while it is read."""

    def __init__(self, content: bytes, change: Callable[["Changing"], object]) -> None:
        super().__init__(content)
        self._change = change
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        self._reads += 1
        if self._reads == 3:
            self._change(self)
        return super().read(size)


def grow(file: Changing) -> None:
    at = file.tell()
    file.seek(0, io.SEEK_END)
    file.write(b"more")
    file.seek(at)


def shrink(file: Changing) -> None:
    file.truncate(len(BODY) - 4)


def shrink_below_what_was_read(file: Changing) -> None:
    file.truncate(10)


@every_flavour
@pytest.mark.parametrize("headers", [{}, {"Content-Length": str(len(BODY))}], ids=["chunked", "of known length"])
def test_a_generator_that_raises(
    flavour: Flavour, receiving: Receiving, receiver: str, headers: dict[str, str]
) -> None:
    broken = Streamed(PIECES[:200], BrokenSourceError("the disk is gone"))
    with flavour.client() as client:
        with pytest.raises(BrokenSourceError, match="the disk is gone"):
            client.request("POST", f"{receiver}/upload", content=broken.of(flavour), headers=headers)
        broken.assert_let_go(flavour)
        receiving.assert_whole()
        # The client goes on.
        client.post(f"{receiver}/upload", BODY)
    receiving.assert_whole(len(BODY))


@every_flavour
def test_a_generator_that_raises_before_the_first_frame_is_full(flavour: Flavour, server: Server) -> None:
    broken = Streamed(PIECES[:10], BrokenSourceError("the disk is gone"))
    with flavour.client(server.inner) as client, pytest.raises(BrokenSourceError):
        client.request("POST", URL, content=broken.of(flavour))
    broken.assert_let_go(flavour)
    assert server.requests == []


@every_flavour
@pytest.mark.parametrize("piece", ["text", 5, None])
def test_a_piece_that_is_not_bytes(flavour: Flavour, server: Server, piece: Any) -> None:
    streamed = Streamed([*PIECES[:100], piece])
    with flavour.client(server.inner) as client, pytest.raises(TypeError, match="bytes-like"):
        client.request("POST", URL, content=streamed.of(flavour))
    streamed.assert_let_go(flavour)
    assert server.opened == []


@every_flavour
@pytest.mark.parametrize(("change", "found"), [(grow, "more"), (shrink, "only"), (shrink_below_what_was_read, "only")])
def test_a_file_that_changes(
    flavour: Flavour, receiving: Receiving, receiver: str, change: Callable[[Changing], object], found: str
) -> None:
    with flavour.client() as client:
        with pytest.raises(
            SealedTransportError, match=rf"announced \d+ bytes, but its body has {found}.*must not change"
        ):
            client.request("POST", f"{receiver}/upload", files={"file": Changing(BODY, change)})
        receiving.assert_whole()
        client.post(f"{receiver}/upload", BODY)
    receiving.assert_whole(len(BODY))


@every_flavour
@pytest.mark.parametrize("length", [FRAME + 1, len(BODY) - 1, len(BODY) + 1, 10 * len(BODY)])
def test_a_generator_of_another_length_than_its_header_says(
    flavour: Flavour, receiving: Receiving, receiver: str, length: int
) -> None:
    headers = {"Content-Length": str(length)}
    streamed = Streamed(PIECES)
    with flavour.client() as client:
        with pytest.raises(SealedTransportError, match=f"announced {length} bytes, but its body has"):
            client.request("POST", f"{receiver}/upload", content=streamed.of(flavour), headers=headers)
        streamed.assert_let_go(flavour)
    receiving.assert_whole()


@every_flavour
@pytest.mark.parametrize("length", [1, 999, 1001, FRAME])
def test_a_short_generator_of_another_length_than_its_header_says_is_not_sent(
    flavour: Flavour, server: Server, length: int
) -> None:
    streamed = Streamed(PIECES[:1])
    expected = rf"nothing was sent: the Content-Length announces {length} bytes, but the body has 1000;"
    with flavour.client(server.inner) as client, pytest.raises(SealedTransportError, match=expected):
        client.request("POST", URL, content=streamed.of(flavour), headers={"Content-Length": str(length)})
    streamed.assert_let_go(flavour)
    assert server.requests == []


# httpx announces the whole file, wherever it stands, and httpx2 what is left of it.
@pytest.mark.parametrize("flavour", [one for one in FLAVOURS if one.http is httpx and not one.is_async], ids=str)
def test_a_file_that_stands_at_its_end_is_not_sent_as_no_body(flavour: Flavour, server: Server) -> None:
    written = io.BytesIO()
    written.write(b"what somebody wrote and did not go back over")
    expected = "nothing was sent: the Content-Length announces 44 bytes, but the body has 0; a file must stand where"
    with flavour.client(server.inner) as client, pytest.raises(SealedTransportError, match=expected):
        client.request("POST", URL, content=written)
    assert server.requests == []


@every_flavour
def test_a_server_without_a_key(flavour: Flavour, server: Server) -> None:
    server.answer_key = lambda: server.response(404, [b""], {})
    streamed = Streamed(PIECES)
    with flavour.client(server.inner) as client, pytest.raises(KeyConfigurationError):
        client.request("POST", URL, content=streamed.of(flavour))
    streamed.assert_let_go(flavour)
    assert streamed.read <= 1 + FRAME / 1000


@every_flavour
def test_a_server_that_is_too_busy_to_tell_its_key(flavour: Flavour, server: Server) -> None:
    server.answer_key = lambda: server.response(503, [b"busy"], {})
    streamed = Streamed(PIECES)
    with flavour.client(server.inner) as client:
        assert client.request("POST", URL, content=streamed.of(flavour)).status_code == 503
        streamed.assert_let_go(flavour)


@every_flavour
@pytest.mark.parametrize("status", [422, 413, 503])
def test_a_server_that_answers_in_the_middle(flavour: Flavour, server: Server, status: int) -> None:
    def handle(request: Any) -> Any:
        if request.method == "GET":
            return server.handle(request)
        server.requests.append(request)
        return server.response(status, [b"no more"], {})

    streamed = Streamed(PIECES)
    with flavour.client(inner_that_reads(flavour, handle, most_frames=lambda: 2)) as client:
        response = client.request("POST", URL, content=streamed.of(flavour))
        assert (response.status_code, response.content) == (status, b"no more")
        del response
        streamed.assert_let_go(flavour)
        assert streamed.read < len(PIECES)


@pytest.mark.parametrize("flavour", [flavour for flavour in FLAVOURS if flavour.is_async], ids=str)
def test_a_task_that_is_cancelled(flavour: Flavour, receiving: Receiving, receiver: str) -> None:
    is_in_the_middle, is_closed = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        try:
            for piece in PIECES[:200]:
                yield piece
            is_in_the_middle.set()
            await asyncio.Event().wait()
        finally:
            is_closed.set()

    async def cancel() -> None:
        async with flavour.http.AsyncClient(transport=flavour.transport()) as client:
            task = asyncio.create_task(client.post(f"{receiver}/upload", content=slow()))
            await asyncio.wait_for(is_in_the_middle.wait(), 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert is_closed.is_set()

    asyncio.run(cancel())
    receiving.assert_whole()


@every_flavour
def test_a_long_body_whose_key_the_server_has_replaced(flavour: Flavour, receiving: Receiving, receiver: str) -> None:
    body = BODY * 20
    with flavour.client() as client:
        client.post(f"{receiver}/upload", "x")
        for _ in range(2):
            receiving.app.state.ephemeral_keys.refresh()
        assert client.post(f"{receiver}/upload", body).status_code == 200
    receiving.assert_whole(1, len(body))
