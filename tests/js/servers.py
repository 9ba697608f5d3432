"""A server for the browser's client, and the means to have a client talk to it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server_keys import KeyRing
from tests.js.engines import Engine

KEY_PATH = "/.well-known/hpke-keys"

# The functions that tests run get `client`, and `read`, which returns a response's whole text.
PRELUDE = """
    const { EhbpClient } = await import(`${base}/ehbp.js`);
    const client = new EhbpClient({ baseUrl: url });
    const read = async ({ pieces }) => {
      const decoder = new TextDecoder();
      let text = "";
      for await (const { plaintext } of pieces) text += decoder.decode(plaintext, { stream: true });
      return text;
    };
    const messageOf = (error) => `${error.name}: ${error.message}`;
"""


@dataclass
class Server:
    """A protected app, and somebody in front of it who answers as a test wants it."""

    inner: ASGIApp
    ring: KeyRing
    url: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    answers: dict[str, Response] = field(default_factory=dict)
    """By path: what is answered in place of the app."""
    key_headers: dict[str, str | None] = field(default_factory=dict)
    """The headers that replace those of the key's answer; None removes one."""
    key_delay_s: float = 0.0
    paths: dict[str, str] = field(default_factory=dict)
    """By path: where a request goes in its place."""
    changes: dict[str, Callable[[Message], Message | None]] = field(default_factory=dict)
    """By path: what makes another message of each one that answers it, or none."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        if scope["method"] != "OPTIONS":  # what browsers ask before they send
            self.requests.append((scope["method"], scope["path"], headers))
        is_key = scope["path"] == KEY_PATH
        if is_key:
            await asyncio.sleep(self.key_delay_s)

        change = self.changes.get(scope["path"]) if scope["method"] != "OPTIONS" else None
        if scope["path"] in self.paths:
            path = self.paths[scope["path"]]
            scope = {**scope, "path": path, "raw_path": path.encode()}

        async def send_changed(message: Message) -> None:
            if is_key and message["type"] == "http.response.start":
                changed = {name.encode(): value for name, value in self.key_headers.items()}
                kept = [header for header in message["headers"] if header[0] not in changed]
                added = [(name, value.encode()) for name, value in changed.items() if value is not None]
                message = {**message, "headers": kept + added}
            changed_message = message if change is None else change(message)
            if changed_message is not None:
                await send(changed_message)

        app: ASGIApp = self.answers.get(scope["path"], self.inner) if scope["method"] != "OPTIONS" else self.inner
        await app(scope, receive, send_changed)

    @property
    def sealed_as(self) -> list[str]:
        """How each request was sealed that was: "v1" or "EHBP"."""
        headers = [headers.get("ehbp-encapsulated-key") for _, _, headers in self.requests]
        return ["v1" if header.startswith("1.") else "EHBP" for header in headers if header is not None]

    @property
    def key_requests(self) -> int:
        return sum(path == KEY_PATH for _, path, _ in self.requests)


def run(engine: Engine, body: str, url: str, **inputs: object) -> Any:
    return engine.run("async ({ base, url, ...inputs }) => {" + PRELUDE + body + "}", url=url, **inputs)
