"""Messages of a response that are longer than a frame: they leave in parts, and look whole only if they are."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterable, Iterator

import pytest
from starlette.types import Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing
from server_keys._native import MalformedMessageError
from tests.helpers import asgi
from tests.helpers.frames import plaintexts_of_frames
from tests.helpers.scripts import run_script
from tests.helpers.sealed_requests import Client, assert_never_whole, sealed_call

FRAME_BYTES = 64 * 1024
OVERHEAD_BYTES = 20
AT_ONCE = 2
"""How many frames leave in one part."""
START: Message = {"type": "http.response.start", "status": 200, "headers": []}
LONG = bytes(range(256)) * (5 * FRAME_BYTES // 256)  # three parts


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


def body(text: bytes, *, ends: bool = False) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": not ends}


def declaring(length: int, **more: object) -> Message:
    return {**START, "headers": [(b"content-length", b"%d" % length)], **more}


def answered(ring: KeyRing, client: Client, *messages: Message) -> asgi.Response:
    """Let an app answer a sealed request with `messages`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return sealed_call(app, ring, client, "/", client.seal(b"x"))


def parts(length: int) -> list[list[int]]:
    """Return the lengths of the frames of each part in which a message of so many bytes leaves."""
    full, rest = divmod(length, FRAME_BYTES)
    frames = [FRAME_BYTES] * full + [rest] * (rest > 0)
    return [frames[start : start + AT_ONCE] for start in range(0, len(frames), AT_ONCE)] or [[]]


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize(
    "length", [0, 1, FRAME_BYTES, FRAME_BYTES + 1, 2 * FRAME_BYTES, 2 * FRAME_BYTES + 1, 5 * FRAME_BYTES + 7]
)
def test_a_message_leaves_in_frames_of_64_kib_two_at_a_time(ring: KeyRing, length: int, ends: bool) -> None:
    text = (LONG * 2)[:length]
    rest = [] if ends else [body(b"the end", ends=True)]
    client = Client(ring.current)
    response = answered(ring, client, START, body(text, ends=ends), *rest)
    assert response.error is None
    assert b"".join(client.open(response)) == text + (b"" if ends else b"the end")
    of_message = response.pieces if ends else response.pieces[:-1]
    assert [plaintexts_of_frames(piece) for piece in of_message] == parts(length)
    assert [message.get("more_body") for message in response.messages[1:]] == [True] * (len(response.pieces) - 1) + [
        False
    ]


@pytest.mark.parametrize("buffer", [bytearray, memoryview, lambda text: memoryview(text)[::-1][::-1]])
def test_any_buffer_is_sent(ring: KeyRing, buffer: Callable[[bytes], bytes]) -> None:
    client = Client(ring.current)
    response = answered(ring, client, START, body(buffer(LONG), ends=True))
    assert b"".join(client.open(response)) == LONG


class Held:
    """A server that waits with each body message until it may go on: before it takes the message, or after that."""

    def __init__(self) -> None:
        self.waits_first = True
        self.response = asgi.Response()
        self.arrived = asyncio.Semaphore(0)
        self.taken = asyncio.Semaphore(0)

    async def send(self, message: Message) -> None:
        if not self.waits_first:
            self.response.messages.append(message)
        if message["type"] == "http.response.body":
            self.arrived.release()
            await self.taken.acquire()
        if self.waits_first:
            self.response.messages.append(message)

    def take_all(self) -> None:
        """Hold nothing any more."""
        for _ in range(100):
            self.taken.release()


def exchange(
    ring: KeyRing,
    client: Client,
    app: Callable[[Receive, Send, Held], Awaitable[None]],
    pieces: list[bytes] | None = None,
    late: Iterable[asyncio.Future[None]] = (),
) -> asgi.Response:
    """Let `app` answer a sealed request through a server that it holds, and wait for what is `late`."""

    async def serve() -> asgi.Response:
        held = Held()
        arriving = client.seal(b"x") if pieces is None else pieces

        async def asgi_app(scope: Scope, receive: Receive, send: Send) -> None:
            await app(receive, send, held)

        async def receive() -> Message:
            return {"type": "http.request", "body": arriving.pop(0), "more_body": bool(arriving)}

        scope = asgi.http_scope("POST", "/", client.headers)
        async with asyncio.timeout(20):
            await EncryptedBodyMiddleware(asgi_app, key_ring=ring)(scope, receive, held.send)
            await asyncio.gather(*late, return_exceptions=True)
        return held.response

    return asyncio.run(serve())


def test_a_part_is_sealed_when_the_server_has_taken_the_one_before(ring: KeyRing) -> None:
    async def app(receive: Receive, send: Send, held: Held) -> None:
        await send(START)
        sending = asyncio.ensure_future(send(body(LONG, ends=True)))
        for number in range(3):
            await held.arrived.acquire()
            await asyncio.sleep(0)
            assert (len(held.response.pieces), held.arrived.locked()) == (number, True)
            held.taken.release()
        await sending

    client = Client(ring.current)
    assert b"".join(client.open(exchange(ring, client, app))) == LONG


def test_no_other_task_comes_between_the_parts_of_a_message(ring: KeyRing) -> None:
    async def app(receive: Receive, send: Send, held: Held) -> None:
        await send(START)
        sending = asyncio.ensure_future(send(body(LONG)))
        await held.arrived.acquire()
        ping = asyncio.ensure_future(send(body(b"ping")))
        held.take_all()
        await asyncio.gather(sending, ping)
        await send(body(b"", ends=True))

    client = Client(ring.current)
    assert b"".join(client.open(exchange(ring, client, app))) == LONG + b"ping"


def test_a_buffer_that_the_app_uses_again_leaves_as_it_was(ring: KeyRing) -> None:
    async def app(receive: Receive, send: Send, held: Held) -> None:
        buffer = bytearray(LONG)
        await send(START)
        sending = asyncio.ensure_future(send(body(buffer, ends=True)))  # type: ignore[arg-type]
        await held.arrived.acquire()
        buffer[:] = bytes(len(buffer))
        held.take_all()
        await sending

    client = Client(ring.current)
    assert b"".join(client.open(exchange(ring, client, app))) == LONG


@pytest.mark.parametrize("waits_first", [True, False], ids=["not taken", "taken"])
def test_an_app_that_gives_a_message_up_and_goes_on_leaves_a_gap(ring: KeyRing, waits_first: bool) -> None:
    async def app(receive: Receive, send: Send, held: Held) -> None:
        await send(START)
        held.waits_first = waits_first
        sending = asyncio.ensure_future(send(body(LONG)))
        await held.arrived.acquire()
        sending.cancel()
        await asyncio.wait([sending])
        held.take_all()
        await send(body(b"and so on", ends=True))

    client = Client(ring.current)
    response = exchange(ring, client, app)
    assert len(response.pieces) == (1 if waits_first else 2)
    opener = client.sealer.response_opener(bytes.fromhex(response.headers["ehbp-response-nonce"]))
    with pytest.raises(MalformedMessageError):
        opener.feed(response.body)


@pytest.mark.parametrize("start", [START, declaring(len(LONG))], ids=["chunked", "declared"])
def test_a_request_that_breaks_off_meanwhile_ends_the_answer_in_the_middle(ring: KeyRing, start: Message) -> None:
    async def app(receive: Receive, send: Send, held: Held) -> None:
        await send(start)
        sending = asyncio.ensure_future(send(body(LONG, ends=True)))
        await held.arrived.acquire()
        while (await receive())["type"] != "http.disconnect":
            pass
        held.take_all()
        await sending

    client = Client(ring.current)
    response = exchange(ring, client, app, [client.seal(b"x")[0], b"\0\0\0\x20" + bytes(32)])
    assert_never_whole(client, response)
    assert not response.is_complete


def test_an_app_that_returns_meanwhile_ends_the_answer_in_the_middle(ring: KeyRing) -> None:
    late: list[asyncio.Future[None]] = []

    async def app(receive: Receive, send: Send, held: Held) -> None:
        await send(START)
        late.append(asyncio.ensure_future(send(body(LONG, ends=True))))
        await held.arrived.acquire()
        asyncio.get_running_loop().call_soon(held.take_all)

    client = Client(ring.current)
    response = exchange(ring, client, app, late=late)
    assert_never_whole(client, response)
    assert not response.is_complete
    with pytest.raises(RuntimeError, match="the app has returned"):
        late[0].result()


@pytest.mark.parametrize("length", [0, 1, FRAME_BYTES, FRAME_BYTES + 1, len(LONG)])
def test_an_answer_of_one_message_says_how_long_it_is(ring: KeyRing, length: int) -> None:
    client = Client(ring.current)
    response = answered(ring, client, declaring(length), body(LONG[:length], ends=True))
    assert response.error is None
    assert b"".join(client.open(response)) == LONG[:length]
    assert response.headers["content-length"] == str(len(response.body))


def test_a_length_counts_the_bytes_of_any_buffer(ring: KeyRing) -> None:
    client = Client(ring.current)
    text = memoryview(LONG).cast("I")
    response = answered(ring, client, declaring(len(LONG)), body(text, ends=True))  # type: ignore[arg-type]
    assert b"".join(client.open(response)) == LONG
    assert response.headers["content-length"] == str(len(response.body))


COMPRESSED = gzip.compress(LONG)


@pytest.mark.parametrize(
    "messages",
    [
        [START, body(LONG, ends=True)],
        [declaring(len(LONG)), body(LONG[:10]), body(LONG[10:], ends=True)],
        [declaring(len(LONG)), body(LONG), body(b"", ends=True)],
        [declaring(len(LONG), trailers=True), body(LONG, ends=True)],
        [
            {
                **START,
                "headers": [(b"content-length", b"%d" % len(COMPRESSED)), (b"content-encoding", b"gzip")],
            },
            body(COMPRESSED, ends=True),
        ],
    ],
    ids=["not declared", "two messages", "an end of its own", "trailers", "compressed"],
)
def test_other_answers_say_no_length(ring: KeyRing, messages: list[Message]) -> None:
    client = Client(ring.current)
    response = answered(ring, client, *messages)
    assert response.error is None
    assert b"".join(client.open(response)) == LONG
    assert "content-length" not in response.headers


@pytest.mark.parametrize("length", [len(LONG) - 1, len(LONG) + 1])
def test_a_length_that_is_wrong_is_not_passed_on(ring: KeyRing, length: int) -> None:
    client = Client(ring.current)
    response = answered(ring, client, declaring(length), body(LONG, ends=True))
    assert isinstance(response.error, RuntimeError)
    assert "content-length" not in response.headers
    assert_never_whole(client, response)


def test_a_start_without_a_length_is_not_held_back(ring: KeyRing) -> None:
    async def app(receive: Receive, send: Send, held: Held) -> None:
        await send(START)
        assert held.response.status == 200
        held.take_all()
        await send(body(b"", ends=True))

    client = Client(ring.current)
    assert client.open(exchange(ring, client, app)) == [b""]


@pytest.mark.parametrize("fails", [True, False])
def test_an_app_that_ends_between_its_start_and_its_body_is_answered_for(ring: KeyRing, fails: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(declaring(10))
        if fails:
            raise LookupError("the app's own")

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"x"))
    assert isinstance(response.error, LookupError) is fails
    assert response.status == 500
    assert client.open(response) == [b"Internal Server Error"]
    assert response.is_complete


def test_a_long_answer_takes_no_more_memory_than_its_app_gives_it() -> None:
    grown_mib = run_script("""
        import asyncio, re
        from pathlib import Path
        from server_keys import EncryptedBodyMiddleware, KeyRing
        from tests.helpers import asgi
        from tests.helpers.sealed_requests import Client

        def resident_mib(what):
            return int(re.search(what + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024

        def serve(text):
            async def app(scope, receive, send):
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": text})

            async def receive():
                return {"type": "http.request", "body": client.seal(b"x")[0]}

            async def send(message):
                await asyncio.sleep(0)

            with KeyRing(300) as ring:
                client = Client(ring.current)
                scope = asgi.http_scope("POST", "/", client.headers)
                asyncio.run(EncryptedBodyMiddleware(app, key_ring=ring)(scope, receive, send))

        serve(b"x")
        text = b"x" * (64 * 1024 * 1024)
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak until now
        before = resident_mib("VmRSS")
        serve(text)
        print(resident_mib("VmHWM") - before)
    """)
    assert int(grown_mib) <= 8
