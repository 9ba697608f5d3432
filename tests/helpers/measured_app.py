"""A protected app with `/metrics` and `/ready`, for servers in processes of their own.

It serves what prometheus_client documents: where PROMETHEUS_MULTIPROC_DIR is set, all processes' metrics together.
`MEASURED_APP_SHARE` is its `share`, and `MEASURED_APP_REFRESH_S` its refresh time.
"""

import os
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from server_keys import metrics, protect
from server_keys.readiness import ready

app = FastAPI()
protect(
    app,
    float(os.environ.get("MEASURED_APP_REFRESH_S", "300")),
    share=os.environ.get("MEASURED_APP_SHARE") or None,
)
metrics.instrument(app)
app.add_api_route("/ready", ready)


@app.get("/metrics")
def scrape() -> Response:
    """Answer a scrape."""
    registry = REGISTRY
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


@app.get("/pid")
def pid() -> int:
    """Tell which process answers."""
    return os.getpid()


@app.post("/echo")
async def echo(request: Request) -> Response:
    """Answer with the body."""
    return Response(await request.body())


@app.post("/stream")
async def stream(request: Request) -> StreamingResponse:
    """Answer with so many events."""
    count = int(await request.body())

    async def events() -> AsyncIterator[bytes]:
        for number in range(count):
            yield f"data: {number}\n\n".encode()

    return StreamingResponse(events(), media_type="text/event-stream")
