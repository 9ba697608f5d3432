"""A protected server for the examples, which remembers what came sealed."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from examples.demo.app import create_app
from tests.helpers.servers import running


@dataclass
class Server:
    """The server of the demo. Its model answers as OpenAI's servers do."""

    app: FastAPI
    url: str = ""
    calls: list[tuple[str, bool]] = field(default_factory=list)
    """The path of each request with a body, and whether it came sealed."""

    def sealed_chats(self) -> int:
        """Return how many chats came, all of which have to have come sealed."""
        chats = [sealed for path, sealed in self.calls if path == "/v1/chat/completions"]
        assert all(chats)
        return len(chats)


class _Remembering:
    def __init__(self, app: ASGIApp, calls: list[tuple[str, bool]]) -> None:
        self.app = app
        self.calls = calls

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            self.calls.append((scope["path"], scope.get("server_keys.opened", False)))
        await self.app(scope, receive, send)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that serves."""
    server = Server(create_app(1000))
    server.app.add_middleware(_Remembering, calls=server.calls)

    async def rotate() -> None:
        for _ in range(2):  # the key that clients have is erased then
            server.app.state.ephemeral_keys.refresh()

    server.app.add_api_route("/rotate", rotate)
    server.app.router.routes.insert(0, server.app.router.routes.pop())  # before the page, which is mounted at the root
    with running(server.app) as server.url:
        yield server
