"""Sealed exchanges that the client, the app or the server breaks off: none looks complete, and nothing stays."""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing
from server_keys._sealing.request import SealedRequest
from tests.helpers import asgi
from tests.helpers.sealed_requests import Client, assert_never_whole, sealed_call

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


def body(text: bytes, *, ends: bool = False) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": not ends}


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


@pytest.fixture
def _only_references_keep_things_alive() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send(START)
    await send(body(b"", ends=True))


@pytest.mark.usefixtures("_only_references_keep_things_alive")
@pytest.mark.parametrize(
    "rest",
    [b"", b"\0\0\x03\x20" + bytes(799), b"\0\0\0\x20" + bytes(32), b"\xff" * 4],
    ids=["whole", "cut", "not authentic", "too large"],
)
def test_nothing_of_a_request_outlives_it(ring: KeyRing, rest: bytes) -> None:
    client = Client(ring.current)
    sealed_call(read_all, ring, client, "/", [*client.seal(b"good"), rest])
    # Its opener holds keys, and what has arrived of a frame.
    assert not [kept for kept in gc.get_objects() if isinstance(kept, SealedRequest)]


async def exchange(ring: KeyRing, client: Client, app: Callable[[Send], Awaitable[None]], server: Send) -> None:
    """Let `app` answer a sealed request through `server`, a server's `send`."""

    async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
        await app(send)

    async def receive() -> Message:
        return {"type": "http.request", "body": client.seal(b"x")[0]}

    headers = client.headers
    await EncryptedBodyMiddleware(asgi_app, key_ring=ring)(asgi.http_scope("POST", "/", headers), receive, server)


def test_an_app_that_is_cancelled_leaves_a_stream_without_an_end(ring: KeyRing) -> None:
    response = asgi.Response()
    streaming = asyncio.Event()

    async def app(send: Send) -> None:
        await send(START)
        await send(body(b"half "))
        streaming.set()
        await asyncio.Event().wait()

    async def server(message: Message) -> None:
        response.messages.append(message)

    async def cancel_midway() -> None:
        serving = asyncio.create_task(exchange(ring, client, app, server))
        await streaming.wait()
        serving.cancel()
        await serving

    client = Client(ring.current)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_midway())
    assert not response.is_complete
    assert_never_whole(client, response)


def test_a_cancelled_app_waits_for_no_server_that_takes_nothing(ring: KeyRing) -> None:
    full = asyncio.Event()
    let_go = asyncio.Event()

    async def app(send: Send) -> None:
        await send(START)
        await send(body(b"half "))

    async def server(message: Message) -> None:
        if message["type"] == "http.response.body":
            full.set()
            await let_go.wait()

    async def cancel_while_it_waits() -> None:
        serving = asyncio.create_task(exchange(ring, Client(ring.current), app, server))
        await full.wait()
        serving.cancel()
        await asyncio.wait([serving], timeout=10)
        assert serving.cancelled()

    asyncio.run(cancel_while_it_waits())


def test_a_last_message_that_the_server_did_not_take_ends_nothing(ring: KeyRing) -> None:
    response = asgi.Response()

    async def app(send: Send) -> None:
        await send(START)
        await send(body(b"one"))
        try:
            await send(body(b"two", ends=True))
        except TimeoutError:
            return

    async def server(message: Message) -> None:
        if message.get("more_body") is False:
            raise TimeoutError
        response.messages.append(message)

    client = Client(ring.current)
    asyncio.run(exchange(ring, client, app, server))
    assert_never_whole(client, response)


def test_an_app_that_sends_a_body_before_a_start_is_answered_for(ring: KeyRing) -> None:
    response = asgi.Response()

    async def app(send: Send) -> None:
        await send(body(b"too early", ends=True))

    async def server(message: Message) -> None:
        if not response.messages and message["type"] != "http.response.start":
            raise RuntimeError("expected http.response.start")
        response.messages.append(message)

    client = Client(ring.current)
    with pytest.raises(RuntimeError, match="expected"):
        asyncio.run(exchange(ring, client, app, server))
    assert response.status == 500
    assert "ehbp-response-nonce" in response.headers


def test_what_the_app_raises_is_not_hidden_by_a_server_that_takes_no_answer(ring: KeyRing) -> None:
    async def app(send: Send) -> None:
        raise LookupError("the app's own")

    async def server(message: Message) -> None:
        raise ConnectionError("the server's")

    with pytest.raises(LookupError, match="the app's own"):
        asyncio.run(exchange(ring, Client(ring.current), app, server))


@pytest.mark.parametrize(
    ("pieces", "complaint"),
    [
        ([b"12345"], "shorter than its Content-Length, by 5 bytes"),
        ([b"12345", b"6789"], "shorter than its Content-Length, by 1 bytes"),
        ([], "shorter than its Content-Length, by 10 bytes"),
        ([b"12345", b"678901"], "longer than its Content-Length, by 1 bytes"),
    ],
)
def test_a_body_of_another_length_than_was_declared_is_never_whole(
    ring: KeyRing, pieces: list[bytes], complaint: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"Content-Length", b"10")]})
        for piece in pieces:
            await send(body(piece))
        await send(body(b"", ends=True))

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"x"))
    assert isinstance(response.error, RuntimeError)
    assert complaint in str(response.error)
    assert_never_whole(client, response)


@pytest.mark.parametrize("pieces", [[b"1234567890"], [b"12345", b"", b"67890"]])
def test_a_body_of_the_declared_length_is_whole(ring: KeyRing, pieces: list[bytes]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", b"10")]})
        *first, last = pieces
        for piece in first:
            await send(body(piece))
        await send(body(last, ends=True))

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"x"))
    assert response.error is None
    assert b"".join(client.open(response)) == b"1234567890"


@pytest.mark.parametrize("lengths", [[b"4, 4"], [b"four"], [b""], [b"1_0"], [b"-1"], [b"4", b"9"]])
def test_a_length_that_says_nothing_promises_nothing(ring: KeyRing, lengths: list[bytes]) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", length) for length in lengths]})
        await send(body(b"1234567890", ends=True))

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"x"))
    assert response.error is None
    assert client.open(response) == [b"1234567890"]


def test_a_length_counts_bytes(ring: KeyRing) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "headers": [(b"content-length", b"8")] * 2})
        await send(body(memoryview(b"12345678").cast("I"), ends=True))  # type: ignore[arg-type]

    client = Client(ring.current)
    assert client.open(sealed_call(app, ring, client, "/", client.seal(b"x"))) == [b"12345678"]


def test_a_length_of_what_is_not_sent_is_none_of_the_body(ring: KeyRing) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({**START, "status": 304, "headers": [(b"content-length", b"10")]})
        await send(body(b"", ends=True))

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"x"))
    assert response.error is None
    assert client.open(response) == [b""]
