"""Responses of version 1 of the wire: their status is sealed, and their end is there only if the app ended them."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyRing
from server_keys._native import MalformedMessageError, MissingEndError
from tests.helpers import asgi
from tests.helpers.sealed_requests import ClientV1, assert_never_whole, call_v1


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


def start(status: int = 200, *headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(text: bytes, *, ends: bool = False) -> Message:
    return {"type": "http.response.body", "body": text, "more_body": not ends}


def sending(*messages: Message) -> ASGIApp:
    """Return an app that sends these messages and returns."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return app


def answered(ring: KeyRing, app: ASGIApp, client: ClientV1) -> asgi.Response:
    pieces = client.seal(b"x") if client.method != "HEAD" else []
    return call_v1(EncryptedBodyMiddleware(app, key_ring=ring), client, pieces=pieces)


@pytest.mark.parametrize("length", [[], [(b"content-length", b"6")]], ids=["streamed", "of a declared length"])
@pytest.mark.parametrize("pieces", [[b"answer"], [b"ans", b"wer"], [b"answer", b""], [b"", b"answer", b""]])
def test_the_end_comes_with_the_last_message(
    ring: KeyRing, pieces: list[bytes], length: list[tuple[bytes, bytes]]
) -> None:
    client = ClientV1(ring)
    messages = [body(piece, ends=number == len(pieces)) for number, piece in enumerate(pieces, start=1)]
    response = answered(ring, sending(start(200, *length), *messages), client)
    assert client.open(response) == pieces
    assert len(response.pieces) == len(pieces)
    assert len(response.pieces[-1]) == (len(pieces[-1]) + 20 if pieces[-1] else 0) + 20
    if length and len(pieces) == 1:
        assert response.headers["content-length"] == str(len(response.body))
    else:
        assert "content-length" not in response.headers


def test_a_long_body_has_one_end(ring: KeyRing) -> None:
    client = ClientV1(ring)
    answer = bytes(200_000)
    response = answered(ring, sending(start(200, (b"content-length", b"200000")), body(answer, ends=True)), client)
    assert b"".join(client.open(response)) == answer
    assert response.headers["content-length"] == str(len(response.body)) == str(200_000 + 4 * 20 + 20)


def test_an_empty_answer_has_an_end(ring: KeyRing) -> None:
    client = ClientV1(ring)
    response = answered(ring, sending(start(200, (b"content-length", b"0")), body(b"", ends=True)), client)
    assert client.open(response) == [b""]
    assert response.headers["content-length"] == "20"


@pytest.mark.parametrize("status", [200, 201, 205, 299, 301, 400, 404, 500, 599])
def test_the_status_is_in_the_sealed_head(ring: KeyRing, status: int) -> None:
    client = ClientV1(ring)
    response = answered(ring, sending(start(status), body(b"x", ends=True)), client)
    assert client.open(response) == [b"x"]  # which compares them


@pytest.mark.parametrize("content", [b"", b"content that must not be there"])
@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_http_lets_have_no_body_ends_in_its_head(ring: KeyRing, status: int, content: bytes) -> None:
    client = ClientV1(ring)
    messages = (start(status, (b"content-length", b"10")), body(content), body(b"", ends=True))
    response = answered(ring, sending(*messages), client)
    assert response.error is None
    assert response.body == b""
    assert client.open(response) == [b"", b""]


@pytest.mark.parametrize("content", [b"", b"0123456789"])
@pytest.mark.parametrize("status", [200, 404])
@pytest.mark.parametrize("length", [[], [(b"content-length", b"10")]])
def test_an_answer_to_head_ends_in_its_head(
    ring: KeyRing, status: int, content: bytes, length: list[tuple[bytes, bytes]]
) -> None:
    client = ClientV1(ring, "HEAD", has_body=False)
    response = answered(ring, sending(start(status, *length), body(content, ends=True)), client)
    assert response.error is None
    assert response.body == b""
    assert "content-length" not in response.headers
    assert client.open(response) == [b""]


def test_no_cut_of_a_response_at_any_byte_is_whole(ring: KeyRing) -> None:
    client = ClientV1(ring)
    response = answered(ring, sending(start(), body(b"one"), body(b"two"), body(b"", ends=True)), client)
    for length in range(len(response.body)):
        opener = client.opener(200, response.headers["ehbp-response-nonce"])
        opened = opener.feed(response.body[:length])
        assert opened in (b"", b"one", b"onetwo")
        with pytest.raises(MalformedMessageError) as cut:
            opener.finish()
        at_a_frames_end = length in (0, 23, 46)
        assert isinstance(cut.value, MissingEndError) or not at_a_frames_end


def test_every_gap_and_every_exchange_of_frames_is_seen(ring: KeyRing) -> None:
    client = ClientV1(ring)
    response = answered(ring, sending(start(), body(b"one"), body(b"two"), body(b"", ends=True)), client)
    frames = response.pieces
    for order in ([0, 2], [1, 2], [2], [1, 0, 2], [0, 2, 1], [0, 1, 1, 2], [0, 1, 2, 2]):
        opener = client.opener(200, response.headers["ehbp-response-nonce"])

        def read(opener: object = opener, order: Sequence[int] = order) -> None:
            for number in order:
                opener.feed(frames[number])  # type: ignore[attr-defined]
            opener.finish()  # type: ignore[attr-defined]

        with pytest.raises(MalformedMessageError):
            read()


async def raises_midway(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"half "))
    raise RuntimeError("a secret in an error")


async def returns_midway(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"half "))


async def declares_more(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-length", b"10")))
    await send(body(b"half ", ends=True))


async def sends_text(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())
    await send({"type": "http.response.body", "body": "text"})


async def never_sends_a_body(scope: Scope, receive: Receive, send: Send) -> None:
    await send(start())


@pytest.mark.parametrize("app", [raises_midway, returns_midway, declares_more, sends_text, never_sends_a_body])
def test_an_app_that_does_not_end_its_answer_leaves_it_without_an_end(ring: KeyRing, app: ASGIApp) -> None:
    client = ClientV1(ring)
    response = answered(ring, app, client)
    assert not response.is_complete
    assert_never_whole(client, response)


def test_an_app_that_fails_before_its_answer_gets_a_sealed_error(ring: KeyRing) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a secret in an error")

    client = ClientV1(ring)
    response = answered(ring, app, client)
    assert response.status == 500
    assert client.open(response) == [b"Internal Server Error"]


async def exchange(ring: KeyRing, client: ClientV1, app: ASGIApp, server: Send) -> None:
    """Let `app` answer through `server`, a server's `send`."""

    async def receive() -> Message:
        return {"type": "http.request", "body": b"".join(client.seal(b"x"))}

    scope = asgi.http_scope("POST", "/", client.headers)
    await EncryptedBodyMiddleware(app, key_ring=ring)(scope, receive, server)


@pytest.mark.parametrize("at_last", [False, True])
def test_an_app_that_is_cancelled_leaves_a_stream_without_an_end(ring: KeyRing, at_last: bool) -> None:
    response = asgi.Response()
    blocked = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"half "))
        if at_last:
            await send(body(b"rest", ends=True))
        else:
            blocked.set()
            await asyncio.Event().wait()

    async def server(message: Message) -> None:
        if message.get("more_body") is False:
            blocked.set()
            await asyncio.Event().wait()  # a server that takes the last message never
        response.messages.append(message)

    async def cancel_midway() -> None:
        serving = asyncio.create_task(exchange(ring, client, app, server))
        await blocked.wait()
        serving.cancel()
        await serving

    client = ClientV1(ring)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_midway())
    assert not response.is_complete
    assert_never_whole(client, response)


@pytest.mark.parametrize("again", [False, True])
def test_a_last_message_that_the_server_did_not_take_ends_nothing(ring: KeyRing, again: bool) -> None:
    response = asgi.Response()
    refused = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await send(body(b"one"))
        with pytest.raises(TimeoutError):
            await send(body(b"two", ends=True))
        if again:
            # Nothing can be sealed behind an end, whether it was sent or not.
            with pytest.raises(RuntimeError):
                await send(body(b"two", ends=True))

    async def server(message: Message) -> None:
        nonlocal refused
        if message.get("more_body") is False and not refused:
            refused += 1
            raise TimeoutError
        response.messages.append(message)

    client = ClientV1(ring)
    asyncio.run(exchange(ring, client, app, server))
    assert refused == 1
    assert_never_whole(client, response)


def test_an_app_that_sends_a_body_before_a_start_is_answered_for(ring: KeyRing) -> None:
    client = ClientV1(ring)
    response = answered(ring, sending(body(b"too early", ends=True)), client)
    assert isinstance(response.error, RuntimeError)
    assert response.status == 500
    assert b"too early" not in response.body
    assert client.open(response) == [b"Internal Server Error"]


def test_trailers_and_early_hints_pass(ring: KeyRing) -> None:
    hint: Message = {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]}
    trailers: Message = {"type": "http.response.trailers", "headers": [], "more_trailers": False}
    client = ClientV1(ring)
    with_trailers = {**start(200, (b"content-length", b"1")), "trailers": True}
    response = answered(ring, sending(hint, with_trailers, body(b"x", ends=True), trailers), client)
    assert response.error is None
    kinds = [message["type"] for message in response.messages]
    assert kinds == ["http.response.early_hint", "http.response.start", "http.response.body", "http.response.trailers"]
    nonce = dict(response.messages[1]["headers"])[b"ehbp-response-nonce"].decode()
    opener = client.opener(200, nonce)
    assert opener.feed(response.messages[2]["body"]) == b"x"
    opener.finish()


def test_tasks_that_send_at_the_same_time_leave_one_end(ring: KeyRing) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start())
        await asyncio.gather(*(send(body(b"%d;" % number)) for number in range(50)))
        await send(body(b"", ends=True))

    async def slow(message: Message) -> None:
        await asyncio.sleep(0)
        response.messages.append(message)

    client, response = ClientV1(ring), asgi.Response()
    asyncio.run(exchange(ring, client, app, slow))
    assert b"".join(client.open(response)) == b"".join(b"%d;" % number for number in range(50))


def test_the_nonce_of_another_sealed_response_is_not_relayed(ring: KeyRing) -> None:
    client = ClientV1(ring)
    response = answered(ring, sending(start(200, (b"Ehbp-Response-Nonce", b"1.a.b")), body(b"x", ends=True)), client)
    assert [name.lower() for name, _ in response.messages[0]["headers"]].count(b"ehbp-response-nonce") == 1
    assert client.open(response) == [b"x"]
