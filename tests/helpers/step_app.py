"""An app whose streams go on only when the client has seen what was sent: `tests.helpers.step_app:app`.

A proxy that holds a stream back lets it wait in vain: it ends with `late`.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from server_keys import protect

STEPS = (b": keep-alive\n\n", b"data: one\n\n", b": keep-alive\n\n", b"data: two\n\n")
LATE = b"late"
WAIT_S = 5.0

app = FastAPI()
_seen: dict[str, asyncio.Event] = defaultdict(asyncio.Event)


@app.post("/steps")
async def steps(request: Request) -> StreamingResponse:
    """Send `STEPS`, each after the client has seen the one before it."""
    name = (await request.body()).decode()

    async def events() -> AsyncIterator[bytes]:
        for number, step in enumerate(STEPS):
            yield step
            try:
                await asyncio.wait_for(_seen[f"{name}-{number}"].wait(), WAIT_S)
            except TimeoutError:
                yield LATE
                return

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/seen/{name}/{number}")
async def seen(name: str, number: int) -> None:
    """Be told that a client has seen a step."""
    _seen[f"{name}-{number}"].set()


@app.post("/whole")
async def whole(request: Request) -> Response:
    """Answer with the body at once."""
    return Response(await request.body(), media_type="application/json", headers={"Cache-Control": "max-age=60"})


protect(app, 300, share=None)
