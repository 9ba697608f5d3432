"""Apps that tests run under uvicorn, in processes of their own: `python -m uvicorn tests.helpers.key_server:app`.

They take from the environment: `KEY_SERVER_PERIOD_S`, and `KEY_SERVER_FOLDER`, where each process leaves a report when
its lifespan is over, and where a file named `no-keys` makes the refreshes of `failing_app` fail.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys import (
    EphemeralKeys,
    KeyPair,
    KeyRing,
    KeysUnavailableError,
    ephemeral_key_lifespan_factory,
    periodic_refresh,
)

PERIOD_S = float(os.environ.get("KEY_SERVER_PERIOD_S", "300"))
SHARE = os.environ.get("KEY_SERVER_SHARE")  # None by default: the test process holds the server's socket, too
FOLDER = Path(os.environ.get("KEY_SERVER_FOLDER", "."))
NO_KEYS = "no-keys"
PEER = KeyPair.generate()

seen: list[KeyPair] = []


class ReportingApp:
    """Writes a report of the keys and tasks that are left when the lifespan of `app` is over."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""

        async def report_and_send(message: Message) -> None:
            if message["type"] == "lifespan.shutdown.complete":
                self.report()
            await send(message)

        await self.app(scope, receive, report_and_send if scope["type"] == "lifespan" else send)

    def report(self) -> None:
        left = {
            "seen": len(set(seen)),
            "erased": len({pair for pair in seen if pair.erased}),
            "refreshing": [task.get_name() for task in asyncio.all_tasks() if "refresh" in repr(task.get_coro())],
        }
        (FOLDER / f"{os.getpid()}.json").write_text(json.dumps(left))


def add_routes(app: FastAPI) -> None:
    @app.get("/key")
    async def key(keys: EphemeralKeys) -> dict[str, Any]:
        seen.extend(keys.accepted)
        current, status = keys.current, keys.status
        assert current.exchange(PEER.public_key) == PEER.exchange(current.public_key)
        return {
            "pid": os.getpid(),
            "accepted": [pair.public_key.hex() for pair in keys.accepted],
            "age_s": status.age_s,
            "refreshes": status.refreshes,
            "failures": status.failures,
            "last_error": status.last_error,
        }

    @app.exception_handler(KeysUnavailableError)
    async def unavailable(_request: Request, error: KeysUnavailableError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503)


def generate_or_fail() -> KeyPair:
    if (FOLDER / NO_KEYS).exists():
        raise MemoryError("a test took all memory for keys")
    return KeyPair.generate()


@asynccontextmanager
async def lifespan_with_failures(app: FastAPI) -> AsyncIterator[None]:
    with KeyRing(PERIOD_S, generate=generate_or_fail) as ring:
        app.state.ephemeral_keys = ring
        task = asyncio.create_task(periodic_refresh(app, PERIOD_S))
        yield
        task.cancel()
        await asyncio.wait([task])


_app = FastAPI(lifespan=ephemeral_key_lifespan_factory(PERIOD_S, share=SHARE)(None))
_failing_app = FastAPI(lifespan=lifespan_with_failures)
add_routes(_app)
add_routes(_failing_app)

app = ReportingApp(_app)
failing_app = ReportingApp(_failing_app)
