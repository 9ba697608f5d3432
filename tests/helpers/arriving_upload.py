"""A request whose body arrives when the test says so."""

import asyncio
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Message

from tests.helpers import asgi
from tests.helpers.sealed_requests import Client, ClientV1


@dataclass
class ArrivingUpload:
    """One request to an app, whose body the test sends piece by piece."""

    client: Client | ClientV1
    incoming: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    response: asgi.Response = field(default_factory=asgi.Response)
    task: asyncio.Task[None] | None = None

    def start(self, app: ASGIApp) -> None:
        self.task = asyncio.create_task(self.run(app))

    async def run(self, app: ASGIApp) -> None:
        try:
            await app(asgi.http_scope("POST", "/", self.client.headers), self.incoming.get, self.send)
        except RuntimeError as error:
            self.response.error = error

    async def send(self, message: Message) -> None:
        self.response.messages.append(message)

    async def arrives(self, piece: bytes, *, more_body: bool = True) -> None:
        """Let a piece arrive, and the app take it."""
        self.incoming.put_nowait({"type": "http.request", "body": piece, "more_body": more_body})
        await settled()

    async def disconnects(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})
        await settled()

    @property
    def is_over(self) -> bool:
        assert self.task is not None
        return self.task.done()

    @property
    def status(self) -> int | None:
        return self.response.status


async def settled() -> None:
    """Let every task that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)
