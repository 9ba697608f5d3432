"""A small app, served as servers do it: its lifespan runs through the app itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from fastapi.applications import FastAPI
from starlette.types import Message

from tests.helpers import asgi
from tests.helpers.sealed_requests import Client


def echo_app() -> FastAPI:
    """Return an app that answers with the body."""
    import fastapi  # OpenTelemetry replaces the class in there

    app = fastapi.FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    return app


async def sealed(app: FastAPI, body: bytes = b"sealed", path: str = "/echo") -> tuple[int | None, bytes]:
    """Send a sealed request, and return the status and the opened response."""
    client = Client(app.state.ephemeral_keys.current)
    response = await asgi.call(app, "POST", path, headers=client.headers, pieces=client.seal(body))
    return response.status, b"".join(client.open(response))


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[FastAPI]:
    """Run the app's lifespan as servers do: through the app itself."""
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    server = asyncio.create_task(app(scope, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    assert await from_app.get() == {"type": "lifespan.startup.complete"}
    try:
        yield app
    finally:
        await to_app.put({"type": "lifespan.shutdown"})
        assert await from_app.get() == {"type": "lifespan.shutdown.complete"}
        await server


async def assert_is_protected(app: FastAPI) -> None:
    """Assert that a running app opens sealed requests, publishes its key and refuses plaintext."""
    assert await sealed(app) == (200, b'"sealed"')
    assert (await asgi.call(app, "POST", "/echo", pieces=[b"in the clear"])).status == 400
    assert (await asgi.call(app, "GET", "/.well-known/hpke-keys")).status == 200
