"""An app that a test besieges: `python -m uvicorn tests.helpers.besieged_app:app`."""

from typing import Any

from fastapi import FastAPI, Request

from server_keys import EphemeralKeys, protect

app = FastAPI()


@app.post("/length")
async def length(request: Request) -> int:
    """Return how long the body was."""
    return len(await request.body())


@app.get("/memory")
async def memory(keys: EphemeralKeys) -> dict[str, Any]:
    """Return what the ring tells of memory."""
    status = keys.status
    assert status.buffers is not None
    return {
        "held_bytes": status.buffers.held_bytes,
        "most_bytes": status.buffers.most_bytes,
        "refusals": dict(status.refusals),
    }


protect(app, share=None)
