"""Calling an ASGI app message by message: what a server does, with nothing hidden."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Scope


@dataclass
class Response:
    """The messages that an app sent, and the exception that it raised."""

    messages: list[Message] = field(default_factory=list)
    error: Exception | None = None

    @property
    def status(self) -> int | None:
        """The status; None if no response was started."""
        return self.messages[0]["status"] if self.messages else None

    @property
    def headers(self) -> dict[str, str]:
        """The headers, by lower-case name."""
        return {name.decode().lower(): value.decode() for name, value in self.messages[0]["headers"]}

    @property
    def pieces(self) -> list[bytes]:
        """The body messages' contents."""
        return [message.get("body", b"") for message in self.messages if message["type"] == "http.response.body"]

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(self.pieces)

    @property
    def is_complete(self) -> bool:
        """Whether the body was ended."""
        return bool(self.messages) and self.messages[-1].get("more_body", False) is False


def http_scope(method: str, path: str, headers: Iterable[tuple[str, str]] = (), **more: Any) -> Scope:
    """Return the scope of a request."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        **more,
    }


async def call(
    app: ASGIApp,
    method: str,
    path: str,
    *,
    headers: Iterable[tuple[str, str]] = (),
    pieces: Iterable[bytes] = (),
    ends: bool = True,
    **more_scope: Any,
) -> Response:
    """Send a request whose body arrives in `pieces` and return what came back.

    Args:
        app: the app.
        method: the method.
        path: the path.
        headers: the headers.
        pieces: the body's pieces, one message each.
        ends: whether the last piece ends the body; if not, the client disconnects after it.
        more_scope: more of the scope.
    """
    body = list(pieces) or ([b""] if ends else [])
    incoming: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": not ends or index < len(body) - 1}
        for index, piece in enumerate(body)
    ]
    response = Response()

    async def receive() -> Message:
        await asyncio.sleep(0)
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        response.messages.append(message)

    try:
        await app(http_scope(method, path, headers, **more_scope), receive, send)
    except Exception as error:  # noqa: BLE001 - a server would log it and cut the connection; tests look at it
        response.error = error
    return response
