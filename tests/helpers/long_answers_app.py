"""An app whose answers are long: `long_answers_app:app`, to be served by any server."""

import asyncio
import contextlib

from fastapi import FastAPI
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from server_keys import protect

ANSWER = bytes(range(256)) * (8 * 1024 * 1024 // 256)


class GivesUp(Response):
    """Sends its only message until its client has not read on for a moment, and then is content with what it sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await super().__call__(scope, receive, send)


app = FastAPI()


@app.post("/whole")
async def whole() -> Response:
    return Response(ANSWER)


@app.post("/cut")
async def cut() -> Response:
    return GivesUp(ANSWER)


protect(app)
