"""The server of bench_streaming.py: `python -m benches.stream_app plain|protected LOOP HTTP`.

LOOP and HTTP are what uvicorn calls so. It prints its port, and ends when its standard input does.
"""

import json
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Message, Send

from server_keys import protect

EVENTS = 20_000
EVENT = b'data: {"token": " unforgettable"}\n\n'


class TimedStreamingResponse(StreamingResponse):
    """Notes how long `send` takes for each event: what stands between a token and the socket."""

    times_s: tuple[float, ...] = ()

    async def stream_response(self, send: Send) -> None:
        times_s = []

        async def timed_send(message: Message) -> None:
            began = time.perf_counter()
            await send(message)
            times_s.append(time.perf_counter() - began)

        await super().stream_response(timed_send)
        TimedStreamingResponse.times_s = tuple(times_s)


def build_app() -> FastAPI:
    app = FastAPI()

    async def events() -> AsyncIterator[bytes]:
        for _ in range(EVENTS):
            yield EVENT

    @app.post("/events")
    async def stream_events() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/timed-events")
    async def stream_timed_events() -> TimedStreamingResponse:
        return TimedStreamingResponse(events(), media_type="text/event-stream")

    @app.get("/times")
    async def last_times() -> tuple[float, ...]:
        return TimedStreamingResponse.times_s

    return app


def main() -> None:
    kind, loop, http = sys.argv[1:]
    app = build_app()
    if kind == "protected":
        protect(app, 300)
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
