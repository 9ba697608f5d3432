"""The middleware opens sealed requests and seals their responses."""

import asyncio
import json
import re
import tracemalloc
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyPair, KeyRing, inject_key_lifespan, inject_middleware, protect
from tests.helpers import asgi
from tests.helpers.sealed_requests import MALFORMED, Client, assert_never_whole, sealed_call, unreachable

SMALL_ORDER = "00" * 32


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    """A key ring that nobody refreshes by itself."""
    with KeyRing(300) as ring:
        yield ring


@pytest.fixture
def app() -> FastAPI:
    """An app that tells what it was asked."""
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return JSONResponse(
            {
                "body": (await request.body()).decode(),
                "content-length": request.headers.get("content-length"),
                "extensions": sorted(request.scope["extensions"]),
            }
        )

    @app.post("/stream")
    async def stream(request: Request) -> Response:
        async def words() -> AsyncIterator[bytes]:
            async for part in request.stream():
                if part:
                    yield part.upper()

        return StreamingResponse(words(), media_type="text/event-stream")

    @app.post("/fails")
    async def fails() -> None:
        raise RuntimeError("a secret in an error")

    @app.post("/fails-midway")
    async def fails_midway() -> Response:
        async def words() -> AsyncIterator[bytes]:
            yield b"half "
            raise RuntimeError("a secret in an error")

        return StreamingResponse(words())

    @app.post("/no-content")
    async def no_content() -> Response:
        return Response(status_code=204)

    return app


def test_the_app_sees_the_plaintext_and_the_wire_only_ciphertext(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    pieces = client.seal(b"attack at dawn")
    response = sealed_call(app, ring, client, "/echo", pieces)
    assert response.status == 200
    assert b"dawn" not in pieces[0] + response.body
    assert json.loads(b"".join(client.open(response)))["body"] == "attack at dawn"
    assert response.headers["content-length"] == str(len(response.body))
    assert response.headers["access-control-expose-headers"] == "Ehbp-Response-Nonce"


def test_frames_need_not_begin_where_messages_do(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    whole = b"".join(client.seal(b"one, ", b"", b"two, ", b"three"))
    response = sealed_call(app, ring, client, "/echo", [whole[i : i + 7] for i in range(0, len(whole), 7)])
    assert json.loads(b"".join(client.open(response)))["body"] == "one, two, three"


def test_the_content_length_is_the_plaintexts_or_none(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    client.headers.append(("content-length", "25"))
    at_once = sealed_call(app, ring, client, "/echo", client.seal(b"hello"))
    assert json.loads(b"".join(client.open(at_once)))["content-length"] == "5"
    client = Client(ring.current)
    client.headers.append(("content-length", "50"))
    in_parts = sealed_call(app, ring, client, "/echo", client.seal(b"hello", b"world"))
    assert json.loads(b"".join(client.open(in_parts)))["content-length"] is None


def test_each_body_message_is_one_frame_sent_at_once(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/stream", client.seal(b"a", b"b", b"c"))
    assert client.open(response) == [b"A", b"B", b"C", b""]


def test_an_error_of_the_app_is_sealed(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/fails", client.seal(b"x"))
    assert response.status == 500
    assert client.open(response)[0] == b"Internal Server Error"
    assert isinstance(response.error, RuntimeError)


def test_an_error_of_an_app_that_answers_none_is_sealed(ring: KeyRing) -> None:
    async def bare_app(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("a secret in an error")

    client = Client(ring.current)
    response = sealed_call(bare_app, ring, client, "/", client.seal(b"x"))
    assert response.status == 500
    assert client.open(response) == [b"Internal Server Error"]


def test_an_error_in_the_middle_of_a_stream_leaves_it_without_an_end(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/fails-midway", client.seal(b"x"))
    assert b"".join(client.open(response)) == b"half "
    assert not response.is_complete
    assert_never_whole(client, response)
    assert isinstance(response.error, RuntimeError)


def test_a_response_without_content_stays_without(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/no-content", client.seal(b"x"))
    assert response.status == 204
    assert response.body == b""
    assert client.open(response) == [b""]


@pytest.mark.parametrize("status", [204, 205, 304])
def test_content_where_there_should_be_none_is_sealed_all_the_same(ring: KeyRing, status: int) -> None:
    client = Client(ring.current)
    response = sealed_call(PlainTextResponse("content", status), ring, client, "/", client.seal(b"x"))
    assert b"content" not in response.body
    assert b"".join(client.open(response)) == b"content"


def test_a_message_that_the_app_sends_again_is_sealed_anew(ring: KeyRing) -> None:
    done = {"type": "http.response.body", "body": b"data: [DONE]"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(done)

    for _ in range(2):
        client = Client(ring.current)
        assert client.open(sealed_call(app, ring, client, "/", client.seal(b"x"))) == [b"data: [DONE]"]


@pytest.mark.parametrize("bytes_like", [bytes, bytearray, memoryview, partial(array, "b")])
def test_any_bytes_like_body_is_sealed_and_left_as_it_was(ring: KeyRing, bytes_like: Callable[[bytes], Any]) -> None:
    message = {"type": "http.response.body", "body": bytes_like(b"token"), "more_body": True}
    before = dict(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send(message)
        await send({"type": "http.response.body"})

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", [bytes_like(piece) for piece in client.seal(b"x")])
    assert client.open(response) == [b"token", b""]
    assert message == before


def test_a_body_that_is_no_bytes_is_refused_and_never_sent(ring: KeyRing) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": "text"})

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"x"))
    assert isinstance(response.error, TypeError)
    assert "str" in str(response.error)
    assert "text" not in repr(response.messages)
    assert_never_whole(client, response)


def test_the_app_is_not_asked_to_compress(ring: KeyRing) -> None:
    seen: list[tuple[bytes, bytes]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await PlainTextResponse("x")(scope, receive, send)

    client = Client(ring.current)
    client.headers += [("accept-encoding", "gzip"), ("content-length", "50")]
    sealed_call(app, ring, client, "/", client.seal(b"a", b"b"))
    assert {name for name, _ in seen} == {b"ehbp-encapsulated-key", b"transfer-encoding", b"accept-encoding"}


def test_the_nonce_of_another_sealed_response_is_not_relayed(ring: KeyRing) -> None:
    async def gateway(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"Ehbp-Response-Nonce", b"ab" * 32)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"relayed"})

    client = Client(ring.current)
    response = sealed_call(gateway, ring, client, "/", client.seal(b"x"))
    assert [name.lower() for name, _ in response.messages[0]["headers"]].count(b"ehbp-response-nonce") == 1
    assert client.open(response) == [b"relayed"]


def test_the_app_gets_no_way_around_the_sealing(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    extensions: dict[str, dict[str, str]] = {"http.response.pathsend": {}, "http.response.trailers": {}}
    response = sealed_call(app, ring, client, "/echo", client.seal(b"x"), extensions=extensions)
    assert json.loads(b"".join(client.open(response)))["extensions"] == ["http.response.trailers"]


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([("ehbp-encapsulated-key", "ab" * 32)] * 2, id="twice"),
        pytest.param([("ehbp-encapsulated-key", "zz" * 32)], id="not hex"),
        pytest.param([("ehbp-encapsulated-key", "ab" * 31)], id="31 bytes"),
        pytest.param([("ehbp-encapsulated-key", "ab" * 31 + "a ")], id="white space"),
        pytest.param([("ehbp-encapsulated-key", "")], id="empty"),
        pytest.param([("ehbp-encapsulated-key", SMALL_ORDER)], id="a point of small order"),
    ],
)
@pytest.mark.parametrize("body", [b"\0\0\0\x14" + bytes(20), b""])
def test_a_malformed_header_is_answered_before_the_app_is_called(
    ring: KeyRing, headers: list[tuple[str, str]], body: bytes
) -> None:
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    response = asyncio.run(asgi.call(protected, "POST", "/", headers=headers, pieces=[body]))
    assert (response.status, json.loads(response.body)) == (400, MALFORMED)


@pytest.mark.parametrize("body", [b"\0\0", b"\0\0\0\0", b"\0\0\0\x14 short", b"\0\0\0\x04abcd"])
def test_a_body_without_a_whole_first_frame_never_reaches_the_app(ring: KeyRing, body: bytes) -> None:
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    headers = Client(ring.current).headers
    response = asyncio.run(asgi.call(protected, "POST", "/", headers=headers, pieces=[body]))
    assert (response.status, json.loads(response.body)) == (400, MALFORMED)
    assert response.headers["content-type"] == "application/problem+json"


def test_a_request_sealed_to_another_key_is_told_so_before_the_app_is_called(ring: KeyRing) -> None:
    client = Client(KeyPair.generate())
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    response = asyncio.run(asgi.call(protected, "POST", "/", headers=client.headers, pieces=client.seal(b"x")))
    assert response.status == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["type"] == "urn:ietf:params:ehbp:error:key-config"


def test_the_previous_key_is_served_while_it_is_accepted(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    ring.refresh()
    served = sealed_call(app, ring, client, "/echo", client.seal(b"late"))
    assert json.loads(b"".join(client.open(served)))["body"] == "late"
    client = Client(ring.accepted[1])
    ring.refresh()
    assert sealed_call(app, ring, client, "/echo", client.seal(b"too late")).status == 422


def test_a_request_in_flight_outlives_its_key(ring: KeyRing) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        ring.close()
        second = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": first["body"] + second["body"]})

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", client.seal(b"before, ", b"after"))
    assert client.open(response) == [b"before, after"]


def test_a_frame_above_the_limit_is_refused_by_its_length_alone(ring: KeyRing) -> None:
    headers = Client(ring.current).headers
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    tracemalloc.start()
    try:
        response = asyncio.run(
            asgi.call(protected, "POST", "/", headers=headers, pieces=[(16777217).to_bytes(4, "big")], ends=False)
        )
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    assert response.status == 413
    assert "16777217" in json.loads(response.body)["title"]


@pytest.mark.parametrize("bad", [b"\0\0\0\x20" + b"x" * 32, b"\0\0\0\x20 cut", b"\0\0"])
def test_an_app_that_reads_a_body_with_a_bad_end_sees_a_disconnect(ring: KeyRing, bad: bytes) -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        while message["type"] == "http.request" and message["more_body"]:
            seen.append(message["body"])
            message = await receive()
        seen.append(message["type"])
        raise ClientDisconnect

    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/", [*client.seal(b"good"), bad])
    assert seen == [b"good", "http.disconnect"]
    assert (response.status, json.loads(response.body)) == (400, MALFORMED)
    assert response.error is None


def test_a_response_that_began_before_the_bad_frame_never_ends(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    response = sealed_call(app, ring, client, "/stream", [*client.seal(b"a", b"b"), b"\0\0\0\x20" + b"x" * 32])
    assert b"".join(client.open(response)) == b"AB"
    assert not response.is_complete
    assert_never_whole(client, response)


def test_a_client_that_goes_away_before_the_first_frame_is_no_request(ring: KeyRing) -> None:
    client = Client(ring.current)
    protected = EncryptedBodyMiddleware(unreachable, key_ring=ring)
    pieces = [client.seal(b"never whole")[0][:-1]]
    response = asyncio.run(asgi.call(protected, "POST", "/", headers=client.headers, pieces=pieces, ends=False))
    assert response.messages == []
    assert response.error is None


def test_an_endless_run_of_empty_frames_is_cut_off(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    pieces = [*client.seal(b"x"), *([bytes(4000)] * 10)]
    assert sealed_call(app, ring, client, "/echo", pieces).status == 400


def test_without_keys_nothing_is_served(app: FastAPI, ring: KeyRing) -> None:
    client = Client(ring.current)
    ring.close()
    response = sealed_call(app, ring, client, "/echo", client.seal(b"x"))
    assert response.status == 500
    assert json.loads(response.body)["title"] == "the server has no key at the moment"


def test_without_a_lifespan_nothing_sealed_is_served(app: FastAPI) -> None:
    protect(app)
    response = asyncio.run(asgi.call(app, "POST", "/echo", headers=Client(KeyPair.generate()).headers, pieces=[b"x"]))
    assert response.status == 500
    assert json.loads(response.body)["title"] == "the server has no key at the moment"


def test_protect_puts_the_sealing_outside_of_the_error_page(app: FastAPI) -> None:
    app.debug = True  # then Starlette's error page shows the source around the error
    app.add_exception_handler(500, lambda *_: PlainTextResponse("a page of the app's own", 500))
    protect(app, 300)

    async def run() -> tuple[asgi.Response, list[bytes]]:
        async with app.router.lifespan_context(app):
            client = Client(app.state.ephemeral_keys.current)
            response = await asgi.call(app, "POST", "/fails", headers=client.headers, pieces=client.seal(b"x"))
            return response, client.open(response)

    response, opened = asyncio.run(run())
    assert response.status == 500
    assert b"RuntimeError" in b"".join(opened)
    assert b"RuntimeError" not in response.body


def test_middleware_that_was_added_the_usual_way_seals_errors_too(app: FastAPI, ring: KeyRing) -> None:
    app.add_middleware(EncryptedBodyMiddleware, key_ring=ring)
    client = Client(ring.current)
    response = asyncio.run(asgi.call(app, "POST", "/fails", headers=client.headers, pieces=client.seal(b"x")))
    assert client.open(response) == [b"Internal Server Error"]


def test_of_two_middlewares_the_outer_one_opens(app: FastAPI, ring: KeyRing) -> None:
    opened: list[object] = []

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        opened.append(scope.get("server_keys.opened"))
        await app(scope, receive, send)

    inner = EncryptedBodyMiddleware(note, key_ring=ring, required=True)
    client = Client(ring.current)
    response = sealed_call(inner, ring, client, "/echo", client.seal(b"once"))
    assert json.loads(b"".join(client.open(response)))["body"] == "once"
    assert opened == [True]


def test_build_functions_get_both_in_either_order(app: FastAPI) -> None:
    def build_app(args: str, supported_tasks: object = None) -> FastAPI:
        """Build it."""
        return app

    for build in (
        inject_key_lifespan(inject_middleware(build_app), 300),
        inject_middleware(inject_key_lifespan(build_app, 300)),
    ):
        assert build.__name__ == "build_app"
        built = build("args", supported_tasks=None)

    @asynccontextmanager
    async def running() -> AsyncIterator[Client]:
        async with built.router.lifespan_context(built):
            yield Client(built.state.ephemeral_keys.current)

    async def run() -> list[bytes]:
        async with running() as client:
            pieces = client.seal(b"both")
            return client.open(await asgi.call(built, "POST", "/echo", headers=client.headers, pieces=pieces))

    assert json.loads(b"".join(asyncio.run(run())))["body"] == "both"


@pytest.mark.parametrize(
    ("option", "error", "message"),
    [
        *(
            ({"required": value}, TypeError, f'required must be True, False or "v1", not {value!r}')
            for value in ("yes", 1, None, "V1", b"v1")
        ),
        *(
            ({"place": value}, error, f'place must be "exact", "suffix" or "off", not {value!r}')
            for value, error in (("", ValueError), ("Exact", ValueError), (None, TypeError), (True, TypeError))
        ),
        ({"open_paths": "/health"}, TypeError, "open_paths must be a list or a tuple of paths"),
        ({"open_paths": None}, TypeError, "open_paths must be a list or a tuple of paths"),
        ({"open_paths": [b"/health"]}, TypeError, "open_paths must contain paths, not b'/health'"),
        *(
            ({"open_paths": ["/ok", value]}, ValueError, f"begin with a slash, without a query, not {value!r}")
            for value in ("", "health", "/health?x", "/health#x")
        ),
    ],
)
def test_what_is_required_is_never_guessed(option: dict[str, Any], error: type[Exception], message: str) -> None:
    for require in (
        lambda: protect(FastAPI(), **option),
        lambda: inject_middleware(FastAPI, **option),
        lambda: EncryptedBodyMiddleware(FastAPI(), **option),
    ):
        with pytest.raises(error, match=re.escape(message)):
            require()
