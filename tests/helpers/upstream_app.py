"""A plain HTTP server behind a proxy: it says what reached it, and streams as a test tells it."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

WORDS = ["Keys ", "come ", "and ", "go."]
_CHUNK: dict[str, Any] = {"id": "1", "created": 0, "model": "tiny"}


@dataclass
class Upstream:
    """An ASGI app without any framework, so that nothing of a request is lost on the way to the test."""

    released: int = 0
    """How many events of `/steps` may be sent."""
    gone: list[str] = field(default_factory=list)
    """The targets whose clients went away before their answer ended."""
    received_bytes: int = 0
    """How much of bodies has arrived."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or lifespan."""
        if scope["type"] == "lifespan":
            return await _live(receive, send)
        body = b""
        more_body = True
        while more_body and scope["path"] not in ("/early", "/silent"):
            message = await receive()
            if message["type"] == "http.disconnect":
                return self.gone.append(_target(scope))
            more_body = message.get("more_body", False)
            self.received_bytes += len(message.get("body", b""))
            if scope["path"] != "/length":
                body += message.get("body", b"")
        await self._answer(scope, receive, send, body)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, body: bytes) -> None:
        match scope["path"]:
            case "/steps" | "/silent":
                await self._until_gone(scope, receive, send)
            case "/v1/chat/completions":
                await _chat(json.loads(body), send)
            case "/length":
                await _whole(send, 200, str(self.received_bytes).encode())
            case "/large":
                await start(send, 200, [])
                for _ in range(int(body)):
                    await send({"type": "http.response.body", "body": bytes(1024 * 1024), "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            case "/broken":
                await start(send, 200, [(b"content-length", b"100")])
                await send({"type": "http.response.body", "body": body, "more_body": True})
            case "/no-content":
                await start(send, 204, [])
                await send({"type": "http.response.body", "body": b""})
            case "/not-modified":
                await start(send, 304, [(b"etag", b'"1"')])
                await send({"type": "http.response.body", "body": b""})
            case "/redirect":
                await _whole(send, 307, b"", [(b"location", b"http://elsewhere.example/")])
            case "/own":
                host = next(value for name, value in scope["headers"] if name == b"host")
                own = b"http://" + host + b"/elsewhere?a=b"
                await _whole(send, 302, b"", [(b"location", own), (b"content-location", own)])
            case "/headers":
                more = [
                    (b"connection", b"x-of-this-hop"),
                    (b"x-of-this-hop", b"1"),
                    (b"keep-alive", b"timeout=5"),
                    (b"ehbp-response-nonce", b"00" * 32),
                    (b"set-cookie", b"a=1"),
                    (b"set-cookie", b"b=2"),
                ]
                await _whole(send, 200, b"", more)
            case _:
                said = {
                    "method": scope["method"],
                    "target": _target(scope),
                    "headers": [[name.decode(), value.decode("latin-1")] for name, value in scope["headers"]],
                    "body": body.decode(),
                }
                await _whole(send, 200, json.dumps(said).encode(), [(b"content-type", b"application/json")])

    async def _until_gone(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events as they are released, until the client goes away."""
        watching = asyncio.create_task(_gone(receive))
        if scope["path"] == "/steps":
            await start(send, 200, [(b"content-type", b"text/event-stream")])
        sent = 0
        while not watching.done() and sent < 1000:
            if sent < self.released and scope["path"] == "/steps":
                await send({"type": "http.response.body", "body": b"data: %d\n\n" % sent, "more_body": True})
                sent += 1
            elif self.released < 0:
                watching.cancel()
                return await send({"type": "http.response.body", "body": b"data: end\n\n"})
            else:
                await asyncio.sleep(0.005)
        self.gone.append(_target(scope))


async def start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    """Start a response."""
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _whole(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await start(send, status, [*(headers or []), (b"content-length", b"%d" % len(body))])
    await send({"type": "http.response.body", "body": body})


async def _chat(request: dict[str, Any], send: Send) -> None:
    if not request.get("stream"):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "".join(WORDS)}}
        answer = {**_CHUNK, "object": "chat.completion", "choices": [choice]}
        return await _whole(send, 200, json.dumps(answer).encode(), [(b"content-type", b"application/json")])
    await start(send, 200, [(b"content-type", b"text/event-stream")])
    for word in WORDS:
        choice = {"index": 0, "finish_reason": None, "delta": {"content": word}}
        event = {**_CHUNK, "object": "chat.completion.chunk", "choices": [choice]}
        line = f"data: {json.dumps(event)}\n\n".encode()
        await send({"type": "http.response.body", "body": line, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


def _target(scope: Scope) -> str:
    path, query = scope["raw_path"].decode(), scope["query_string"].decode()
    return f"{path}?{query}" if query else path
