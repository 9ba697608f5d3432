"""An app that takes version 1 of the wire alone, for servers in processes of their own: `tests.helpers.v1_app:app`.

`V1_APP_PLACE` is its `place`.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import Response, StreamingResponse

from server_keys import protect

EVENTS = [b"data: %d\n\n" % number for number in range(9)]

app = FastAPI()


@app.get("/health")
async def health() -> str:
    """Answer a health check."""
    return "ok"


@app.api_route("/seen/{rest:path}", methods=["GET", "HEAD", "POST", "DELETE", "PUT"])
async def seen(request: Request, rest: str) -> Response:
    """Tell what arrived."""
    said = f"{request.method} {rest} {request.url.query} {(await request.body()).decode()}"
    return Response(said, media_type="text/plain", headers={"ETag": '"1"'})


@app.api_route("/status/{status}", methods=["GET", "HEAD", "POST"])
async def status(status: int) -> Response:
    """Answer with a status, and with a body where there may be one."""
    return Response(None if status in (204, 304) else "body", status)


@app.get("/events")
async def events() -> StreamingResponse:
    """Stream."""
    return StreamingResponse(iter(EVENTS), media_type="text/event-stream")


async def some_events(then: Any) -> AsyncIterator[bytes]:
    for event in EVENTS[:4]:
        yield event
    then()


def fail() -> None:
    raise RuntimeError("a secret in an error")


@app.get("/fails")
async def fails() -> StreamingResponse:
    """Fail in the middle of a stream."""
    return StreamingResponse(some_events(fail), media_type="text/event-stream")


@app.get("/dies")
async def dies() -> StreamingResponse:
    """Kill the server in the middle of a stream."""

    async def some() -> AsyncIterator[bytes]:
        async for event in some_events(lambda: None):
            yield event
        # What was sent leaves before the process is gone.
        import asyncio

        await asyncio.sleep(0.5)
        os._exit(1)

    return StreamingResponse(some(), media_type="text/event-stream")


@app.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    """Echo one message."""
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


place: Any = os.environ.get("V1_APP_PLACE", "exact")
protect(app, 300, share=None, required="v1", place=place, open_paths=["/health"])
