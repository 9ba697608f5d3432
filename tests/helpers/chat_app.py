"""A small app to talk to, with plain, streaming and failing answers."""

import gzip
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from server_keys import protect


def build_app() -> FastAPI:
    """Return an app whose keys change when a test says so."""
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return JSONResponse({"body": (await request.body()).decode()})

    @app.post("/events")
    async def events(request: Request) -> Response:
        words = (await request.body()).decode().split()

        async def stream() -> AsyncIterator[str]:
            for word in words:
                yield f"data: {word}\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    @app.post("/compressed")
    async def compressed(request: Request) -> Response:
        return Response(gzip.compress(await request.body()), headers={"Content-Encoding": "gzip"})

    @app.post("/no-content")
    async def no_content() -> Response:
        return Response(status_code=204)

    @app.post("/fails")
    async def fails() -> Response:
        return JSONResponse({"detail": "refused"}, status_code=403)

    return protect(app, 300)
