"""The sealing transports against a real server while its keys rotate."""

import asyncio
import json
import pydoc
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.middleware.gzip import GZipMiddleware

from server_keys import protect
from tests.helpers.client_flavours import FLAVOURS, Flavour
from tests.helpers.servers import running

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS, ids=str)


def test_a_request_and_its_response(flavour: Flavour, url: str) -> None:
    with flavour.client() as client:
        response = client.post(f"{url}/echo", "hello")
    assert (response.status_code, response.json()) == (200, {"body": "hello"})
    assert "ehbp-response-nonce" in response.headers


def test_its_help_says_what_it_does_and_takes(flavour: Flavour) -> None:
    name = "AsyncSealedTransport" if flavour.is_async else "SealedTransport"
    shown = pydoc.plain(pydoc.render_doc(type(flavour.transport())))
    assert f"class {name} in module server_keys.client.{flavour.http.__name__}\n" in shown
    for words in ("Client(transport=", "verify_key: ", "max_frame_bytes: ", "UnsealedResponseError: "):
        assert words in shown


def test_it_is_a_transport_of_its_library(flavour: Flavour) -> None:
    base = flavour.http.AsyncBaseTransport if flavour.is_async else flavour.http.BaseTransport
    assert isinstance(flavour.transport(), base)


def test_a_long_body_travels_in_several_frames(flavour: Flavour) -> None:
    app = FastAPI()

    @app.post("/length")
    async def length(request: Request) -> dict[str, int]:
        return {"length": len(await request.body())}

    protect(app, 300, max_frame_bytes=100_000)
    with running(app) as url, flavour.client() as client:
        assert client.post(f"{url}/length", bytes(1_000_000)).json() == {"length": 1_000_000}


def test_a_request_without_a_body_is_sealed(flavour: Flavour, url: str) -> None:
    with flavour.client() as client:
        response = client.request("GET", f"{url}/openapi.json")
    assert response.json()["paths"]
    assert response.headers["ehbp-response-nonce"].startswith("1.")


def test_errors_of_the_app_are_opened(flavour: Flavour, url: str) -> None:
    with flavour.client() as client:
        response = client.post(f"{url}/fails", "x")
        assert (response.status_code, response.json()) == (403, {"detail": "refused"})
        assert client.post(f"{url}/no-content", "x").status_code == 204


def test_rotations_go_unnoticed(flavour: Flavour, app: FastAPI, url: str) -> None:
    ring = app.state.ephemeral_keys
    with flavour.client() as client:
        for rotations in (0, 1, 2, 3):
            for _ in range(rotations):
                ring.refresh()
            assert client.post(f"{url}/echo", str(rotations)).json() == {"body": str(rotations)}


def test_an_app_that_can_compress_is_not_asked_to(flavour: Flavour, app: FastAPI) -> None:
    app.add_middleware(GZipMiddleware, minimum_size=10)
    with running(app) as url, flavour.client() as client:
        response = client.post(f"{url}/echo", "again " * 1000)
    assert "content-encoding" not in response.headers
    assert response.json() == {"body": "again " * 1000}


def test_a_token_is_read_before_the_next_is_sent(flavour: Flavour) -> None:
    app = FastAPI()
    go_on = asyncio.Event()

    @app.post("/tokens")
    async def tokens() -> StreamingResponse:
        async def stream() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.wait_for(go_on.wait(), 10)
            yield b"second"

        return StreamingResponse(stream())

    @app.get("/go-on")
    async def let_go_on() -> None:
        go_on.set()

    protect(app)
    with running(app) as url, flavour.client() as client:
        pieces = client.pieces(f"{url}/tokens", "x")
        assert next(pieces) == b"first"
        flavour.http.get(f"{url}/go-on")
        assert list(pieces) == [b"second"]


def test_the_wire_carries_neither_prompt_nor_answer(flavour: Flavour, app: FastAPI) -> None:
    seen: list[bytes] = []

    async def eavesdropping(scope, receive, send):  # type: ignore[no-untyped-def]
        async def note_receive():  # type: ignore[no-untyped-def]
            message = await receive()
            seen.append(message.get("body", b""))
            return message

        async def note_send(message):  # type: ignore[no-untyped-def]
            seen.append(message.get("body", b""))
            await send(message)

        await app(scope, note_receive, note_send)

    with running(eavesdropping) as url, flavour.client() as client:
        assert client.post(f"{url}/echo", "attack at dawn").json() == {"body": "attack at dawn"}
    wire = b"".join(seen)
    assert len(wire) > 2 * len(json.dumps({"body": "attack at dawn"}))
    assert b"dawn" not in wire
