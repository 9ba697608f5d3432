"""Fixtures for the browser's client: an engine to run it in, and a server."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from starlette.responses import Response, StreamingResponse

from server_keys import KeyRing, protect
from tests.helpers.servers import running
from tests.js.engines import ENGINES, ENGINES_WITH_XWING, Engine, engine_named
from tests.js.servers import Server


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Chromium, then Node without and with X-Wing."""
    with engine_named(request.param) as engine:
        yield engine


@pytest.fixture(scope="module", params=ENGINES_WITH_XWING)
def xwing_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Chromium, then Node with X-Wing."""
    with engine_named(request.param) as engine:
        yield engine


@pytest.fixture
def server() -> Iterator[Server]:
    """A server whose pages are of another origin than the client's."""
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        words = (await request.body()).decode().split(" ")

        async def stream() -> Any:
            for word in words:
                yield f"{word};"

        return StreamingResponse(stream())

    @app.post("/nothing")
    async def nothing() -> Response:
        return Response(status_code=204)

    @app.api_route("/asked", methods=["GET", "HEAD", "DELETE", "PATCH"])
    async def asked(request: Request) -> Response:
        body = (await request.body()).decode()
        return Response(f"{request.method} {request.url.query} {body}", status_code=201, media_type="text/asked")

    @app.get("/unchanged")
    async def unchanged() -> Response:
        return Response(status_code=304)

    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    # The key lifespan finds this ring in the app's state, and shares it.
    with KeyRing(300) as ring:
        app.state.ephemeral_keys = ring
        server = Server(protect(app), ring)
        with running(server) as url:
            server.url = url
            yield server
