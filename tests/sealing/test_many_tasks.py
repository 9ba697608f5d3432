"""Sealed responses whose messages are sent by several tasks at once, as sse-starlette sends its pings."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing
from tests.helpers import asgi
from tests.helpers.sealed_requests import Client, assert_never_whole

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


def piece(text: bytes) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": True}


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


class SlowServer:
    """Takes body messages while its client does, in the order in which it comes to them, as uvicorn does."""

    def __init__(self) -> None:
        self.response = asgi.Response()
        self.client_reads = asyncio.Event()
        self.client_reads.set()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            await self.client_reads.wait()
        self.response.messages.append(message)


def answer(
    ring: KeyRing,
    client: Client,
    app: Callable[[Send, SlowServer], Coroutine[Any, Any, None]],
    late: Iterable[asyncio.Future[None]] = (),
) -> SlowServer:
    """Let `app` answer a sealed request, wait for what is `late`, and return its server."""

    async def serve() -> SlowServer:
        server = SlowServer()

        async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
            await app(send, server)

        async def receive() -> Message:
            return {"type": "http.request", "body": client.seal(b"x")[0]}

        scope = asgi.http_scope("POST", "/", client.headers)
        await EncryptedBodyMiddleware(asgi_app, key_ring=ring)(scope, receive, server.send)
        await asyncio.gather(*late, return_exceptions=True)
        return server

    return asyncio.run(serve())


def test_frames_arrive_in_the_order_they_were_sealed_in(ring: KeyRing) -> None:
    async def app(send: Send, server: SlowServer) -> None:
        async def data() -> None:
            for text in (b"one", b"two", b"three"):
                await send(piece(text))

        async def ping() -> None:
            await send(piece(b"ping"))

        await send(START)
        server.client_reads.clear()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(data())
            tasks.create_task(ping())
            await asyncio.sleep(0)  # Both wait for the client now.
            server.client_reads.set()
        await send(END)

    client = Client(ring.current)
    opened = client.open(answer(ring, client, app).response)
    assert sorted(opened) == [b"", b"one", b"ping", b"three", b"two"]
    assert [text for text in opened if text not in (b"", b"ping")] == [b"one", b"two", b"three"]


def test_many_tasks_lose_nothing(ring: KeyRing) -> None:
    texts = {f"{task} {number}".encode() for task in range(8) for number in range(20)}

    async def app(send: Send, server: SlowServer) -> None:
        async def work(task: int) -> None:
            for number in range(20):
                await send(piece(f"{task} {number}".encode()))
                if number % 5 == task % 5:
                    await asyncio.sleep(0)

        async def block_now_and_then() -> None:
            for _ in range(10):
                server.client_reads.clear()
                await asyncio.sleep(0)
                server.client_reads.set()
                await asyncio.sleep(0)

        await send(START)
        async with asyncio.TaskGroup() as tasks:
            for task in range(8):
                tasks.create_task(work(task))
            tasks.create_task(block_now_and_then())
        await send(END)

    client = Client(ring.current)
    opened = client.open(answer(ring, client, app).response)
    assert {text for text in opened if text} == texts
    assert len(opened) == len(texts) + 1


def test_a_message_waits_for_one_that_another_task_is_sending(ring: KeyRing) -> None:
    async def app(send: Send, server: SlowServer) -> None:
        await send(START)
        server.client_reads.clear()
        first = asyncio.ensure_future(send(piece(b"first")))
        await asyncio.sleep(0)
        server.client_reads.set()
        await send(piece(b"second"))
        await first
        await send(END)

    client = Client(ring.current)
    assert client.open(answer(ring, client, app).response) == [b"first", b"second", b""]


async def send_in_vain(send: Send, text: bytes) -> None:
    """Send a message and give up while it waits."""
    sending = asyncio.ensure_future(send(piece(text)))
    await asyncio.sleep(0)
    sending.cancel()
    await asyncio.wait([sending])
    assert sending.cancelled()


def test_messages_whose_turn_never_comes_go_with_their_tasks(ring: KeyRing) -> None:
    async def app(send: Send, server: SlowServer) -> None:
        await send(START)
        server.client_reads.clear()
        data = asyncio.ensure_future(send(piece(b"data")))
        await asyncio.sleep(0)
        for _ in range(2):
            await send_in_vain(send, b"ping")
        server.client_reads.set()
        await data
        await send(piece(b"more"))
        await send(END)

    client = Client(ring.current)
    assert client.open(answer(ring, client, app).response) == [b"data", b"more", b""]


def test_a_task_that_gives_up_lets_nobody_overtake_the_first(ring: KeyRing) -> None:
    async def app(send: Send, server: SlowServer) -> None:
        await send(START)
        server.client_reads.clear()
        data = asyncio.ensure_future(send(piece(b"data")))
        await asyncio.sleep(0)
        await send_in_vain(send, b"ping")
        server.client_reads.set()
        await send(piece(b"next"))
        await data
        await send(END)

    client = Client(ring.current)
    assert client.open(answer(ring, client, app).response) == [b"data", b"next", b""]


def test_a_message_that_comes_after_the_app_has_returned_is_refused(ring: KeyRing) -> None:
    late: list[asyncio.Future[None]] = []

    async def app(send: Send, server: SlowServer) -> None:
        await send(START)
        server.client_reads.clear()
        late.extend(asyncio.ensure_future(send(piece(text))) for text in (b"in the server", b"waits"))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.01, server.client_reads.set)

    client = Client(ring.current)
    assert_never_whole(client, answer(ring, client, app, late).response)
    assert late[0].exception() is None
    with pytest.raises(RuntimeError, match="the app has returned"):
        late[1].result()


def test_a_message_that_nobody_awaits_is_not_sent(ring: KeyRing) -> None:
    forgotten = []

    async def app(send: Send, server: SlowServer) -> None:
        await send(START)
        forgotten.append(send(piece(b"forgotten")))
        await send(END)

    client = Client(ring.current)
    assert client.open(answer(ring, client, app).response) == [b""]
    forgotten[0].close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("give_up", ["cancel", "close"])
def test_a_task_that_gives_up_when_its_turn_has_come_passes_it_on(ring: KeyRing, give_up: str) -> None:
    async def app(send: Send, server: SlowServer) -> None:
        await send(START)
        server.client_reads.clear()
        data = asyncio.ensure_future(send(piece(b"data")))
        await asyncio.sleep(0)
        if give_up == "cancel":
            leave = asyncio.ensure_future(send(piece(b"ping"))).cancel
        else:
            coroutine: Any = send(piece(b"ping"))
            coroutine.send(None)
            leave = coroutine.close
        after = asyncio.ensure_future(send(piece(b"after")))
        await asyncio.sleep(0)
        server.client_reads.set()
        asyncio.get_running_loop().call_soon(leave)  # When "data" is sent, and before the other knows.
        async with asyncio.timeout(5):
            await asyncio.gather(data, after)
        await send(END)

    client = Client(ring.current)
    assert client.open(answer(ring, client, app).response) == [b"data", b"after", b""]


def test_a_server_whose_send_makes_no_coroutine_is_served_too(ring: KeyRing) -> None:
    response = asgi.Response()
    client = Client(ring.current)

    def send_to_server(message: Message) -> asyncio.Future[None]:
        response.messages.append(message)
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(None)
        return sent

    async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in (START, piece(b"one"), piece(b"two"), END):
            await send(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": client.seal(b"x")[0]}

    scope = asgi.http_scope("POST", "/", client.headers)
    asyncio.run(EncryptedBodyMiddleware(asgi_app, key_ring=ring)(scope, receive, send_to_server))
    assert client.open(response) == [b"one", b"two", b""]
