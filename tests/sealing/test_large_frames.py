"""Bodies that a client seals as one frame, as tinfoil-ehbp and npm ehbp do, do not hold the event loop up."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing
from tests.helpers import asgi
from tests.helpers.scripts import run_script
from tests.helpers.sealed_requests import Client

LARGE = bytes(16 * 1024 * 1024 - 16)
PIECE_BYTES = 64 * 1024


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    with KeyRing(300) as ring:
        yield ring


async def count_body(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body."""
    received, more_body = 0, True
    while more_body:
        message = await receive()
        received += len(message.get("body", b""))
        more_body = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % received})


def pieces_of(sealed: bytes) -> list[bytes]:
    return [sealed[start : start + PIECE_BYTES] for start in range(0, len(sealed), PIECE_BYTES)]


def answer(ring: KeyRing, parts: list[bytes]) -> bytes:
    client = Client(ring.current)
    pieces = [piece for part in parts for piece in pieces_of(client.sealer.seal(part))]
    app = EncryptedBodyMiddleware(count_body, key_ring=ring)
    response = asyncio.run(asgi.call(app, "POST", "/", headers=client.headers, pieces=pieces))
    return b"".join(client.open(response))


@pytest.mark.parametrize("parts", [[LARGE], [b"first", LARGE], [LARGE, b"last"], [LARGE, LARGE]])
def test_they_are_opened_in_their_order(ring: KeyRing, parts: list[bytes]) -> None:
    assert answer(ring, parts) == b"%d" % sum(map(len, parts))


def test_they_do_not_wait_for_the_threads_that_the_app_keeps_busy(ring: KeyRing) -> None:
    client, released = Client(ring.current), threading.Event()
    app = EncryptedBodyMiddleware(count_body, key_ring=ring)

    async def main() -> asgi.Response:
        busy = [asyncio.create_task(asyncio.to_thread(released.wait, 20)) for _ in range(100)]
        await asyncio.sleep(0.01)  # until they have taken all threads of the event loop
        try:
            call = asgi.call(app, "POST", "/", headers=client.headers, pieces=client.seal(LARGE))
            return await asyncio.wait_for(call, 10)
        finally:
            released.set()
            await asyncio.gather(*busy)

    assert b"".join(client.open(asyncio.run(main()))) == b"%d" % len(LARGE)


def test_a_forked_child_opens_them_too() -> None:
    run_script("""
        import os, signal, warnings
        from server_keys import KeyRing
        from tests.sealing.test_large_frames import LARGE, answer

        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork")

        def opens():
            with KeyRing(300) as ring:
                return answer(ring, [LARGE, LARGE]) == b"%d" % (2 * len(LARGE))

        assert opens()
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            os._exit(0 if opens() else 1)
        assert os.waitpid(pid, 0)[1] == 0
    """)


async def body_read_by(receive: Receive) -> bytes:
    """Read the body by calls of `receive` that give up again and again."""
    body, more_body = b"", True
    while more_body:
        try:
            async with asyncio.timeout(0.001):
                message = await receive()
        except TimeoutError:
            continue
        body += message["body"]
        more_body = message["more_body"]
    return body


async def body_read_by_two(receive: Receive) -> bytes:
    """Read the body by two tasks at once."""
    body = b""

    async def read() -> None:
        nonlocal body
        while (message := await receive())["type"] == "http.request":
            body += message["body"]

    await asyncio.gather(read(), read())
    return body


@pytest.mark.parametrize("read", [body_read_by, body_read_by_two])
def test_no_byte_is_lost_or_overtaken_however_the_app_reads(
    ring: KeyRing, read: Callable[[Receive], Awaitable[bytes]]
) -> None:
    parts = [b"first", b"\1" * len(LARGE), b"between", b"\2" * len(LARGE), b"last"]
    seen: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(await read(receive))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    client = Client(ring.current)
    pieces = [piece for part in parts for piece in pieces_of(client.sealer.seal(part))]
    call = asgi.call(EncryptedBodyMiddleware(app, key_ring=ring), "POST", "/", headers=client.headers, pieces=pieces)
    assert asyncio.run(call).status == 204
    assert seen == [b"".join(parts)]


def test_a_large_frame_that_is_not_authentic_refuses_the_request(ring: KeyRing) -> None:
    client = Client(ring.current)
    first, second = client.sealer.seal(b"first"), bytearray(client.sealer.seal(LARGE))
    second[-1] ^= 1
    app = EncryptedBodyMiddleware(count_body, key_ring=ring)
    pieces = [first, *pieces_of(bytes(second))]
    response = asyncio.run(asgi.call(app, "POST", "/", headers=client.headers, pieces=pieces))
    assert response.status == 400


class Served:
    """A request of one large frame whose pieces are all there at once, beside a task that counts its turns.

    So nothing but the opening of a frame lets the other task have a turn.
    """

    def __init__(self, ring: KeyRing) -> None:
        client = Client(ring.current)
        self._ring = ring
        self._pieces = pieces_of(client.sealer.seal(LARGE))
        self._scope = asgi.http_scope("POST", "/", client.headers)
        self._turns = 0
        self.turns_before_pieces: list[int] = []
        self.turns_before_the_app: int | None = None

    async def run(self, *, cancel_amid_opening: bool = False) -> None:
        app = EncryptedBodyMiddleware(self._app, key_ring=self._ring)
        request = asyncio.create_task(app(self._scope, self._receive, self._send))
        while not request.done():
            self._turns += 1
            await asyncio.sleep(0)
            if cancel_amid_opening and not self._pieces:
                request.cancel()
        await request

    async def _receive(self) -> Message:
        self.turns_before_pieces.append(self._turns)
        return {"type": "http.request", "body": self._pieces.pop(0), "more_body": bool(self._pieces)}

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.turns_before_the_app = self._turns

    async def _send(self, message: Message) -> None:
        pass


def test_the_loop_goes_on_while_they_are_opened(ring: KeyRing) -> None:
    served = Served(ring)
    asyncio.run(served.run())
    assert len(set(served.turns_before_pieces)) == 1, "a piece that completes no frame needs no thread"
    assert served.turns_before_the_app is not None
    assert served.turns_before_the_app > served.turns_before_pieces[-1]


def test_a_request_that_is_cancelled_while_its_frame_is_opened_ends(ring: KeyRing) -> None:
    served = Served(ring)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(served.run(cancel_amid_opening=True))
    assert served.turns_before_the_app is None
