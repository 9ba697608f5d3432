"""A protected app with `/metrics` and `/ready`, for servers in processes of their own.

It serves what prometheus_client documents: where PROMETHEUS_MULTIPROC_DIR is set, all processes' metrics together.
`MEASURED_APP_SHARE` is its `share`, `MEASURED_APP_REFRESH_S` its refresh time, and `MEASURED_APP_MAX_BUFFERED_BYTES`
the bound of its memory. `MEASURED_APP_SEED` is a file with the seed of an identity: what signs reads it each time, so
that it fails while the file is away.
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from server_keys import Signer, metrics, protect
from server_keys.readiness import ready
from tests.helpers.signed_answers import OtherSigner


def _signer() -> Signer | None:
    seed = os.environ.get("MEASURED_APP_SEED")
    if seed is None:
        return None
    return Signer(
        OtherSigner(Path(seed).read_bytes()).public_key,
        lambda message: OtherSigner(Path(seed).read_bytes()).sign(message),
    )


app = FastAPI()
protect(
    app,
    float(os.environ.get("MEASURED_APP_REFRESH_S", "300")),
    share=os.environ.get("MEASURED_APP_SHARE") or None,
    max_buffered_bytes=int(os.environ.get("MEASURED_APP_MAX_BUFFERED_BYTES", "268435456")),
    identity=_signer(),
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
