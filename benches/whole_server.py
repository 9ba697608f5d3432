"""The servers of the benchmarks of whole clients: `python -m benches.whole_server PROTECTION LOOP HTTP`.

PROTECTION is `plain`, `server_keys`, `hpke_http`, `signed` (`server_keys` with an identity) or `replays_allowed`
(`server_keys` without a memory of requests); LOOP and HTTP are what uvicorn calls so. It prints its port, and ends when
its standard input does.
"""

import json
import socket
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from hpke_http.middleware.fastapi import HPKEMiddleware
from hpke_http.protocol import Limits, generate_key_pair
from starlette.types import ASGIApp, Scope

from server_keys import protect
from server_keys._native import SigningKey

EVENT = b'data: {"token": " unforgettable"}\n\n'
# What `hpke-http` wants beside a key: client and server share a secret of their own.
HPKE_HTTP_SECRET = bytes(range(32))
HPKE_HTTP_SECRET_NAME = b"benchmark"
HPKE_HTTP_PATH = "/protected"
# Its default is 8 MiB.
HPKE_HTTP_LIMITS = Limits(max_body_len=64 * 1024 * 1024)


def build_app() -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), media_type="application/octet-stream")

    @app.post("/events/{count}")
    async def stream_events(count: int) -> StreamingResponse:
        async def events() -> AsyncIterator[bytes]:
            for _ in range(count):
                yield EVENT

        return StreamingResponse(events(), media_type="text/event-stream")

    return app


def protected_by_hpke_http(app: ASGIApp) -> ASGIApp:
    key_pair = generate_key_pair()
    seen: set[bytes] = set()

    def secret_of(name: bytes, scope: Scope) -> bytes:
        if name != HPKE_HTTP_SECRET_NAME:
            raise LookupError(name)
        return HPKE_HTTP_SECRET

    def is_new(request: bytes, deadline: int, scope: Scope) -> bool:
        if request in seen:
            return False
        seen.add(request)
        return True

    return HPKEMiddleware(
        app,
        key_pair.private_key,
        b"key",
        secret_of,
        is_new,
        transport_path=HPKE_HTTP_PATH,
        key_use_for_s=3600,
        limits=HPKE_HTTP_LIMITS,
    )


def protected(protection: str, folder: Path) -> ASGIApp:
    """Return the app with a protection. An identity's file is written into the folder."""
    app = build_app()
    match protection:
        case "server_keys":
            return protect(app, 300)
        case "replays_allowed":
            return protect(app, 300, replay="allow")
        case "signed":
            SigningKey.new_file(folder / "server.key").erase()
            return protect(app, 300, identity=folder / "server.key")
        case "hpke_http":
            return protected_by_hpke_http(app)
        case _:
            return app


def main() -> None:
    protection, loop, http = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        serve(protected(protection, Path(folder)), loop, http)


def serve(app: ASGIApp, loop: str, http: str) -> None:
    # With the protocol named, asyncio turns Nagle's algorithm off, as it does for uvicorn's own sockets.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = uvicorn.Server(uvicorn.Config(app, loop=loop, http=http, log_level="warning", ws="none"))

        def stop_with_input() -> None:
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=stop_with_input, daemon=True).start()
        print(json.dumps(listener.getsockname()[1]), flush=True)
        server.run([listener])


if __name__ == "__main__":
    main()
