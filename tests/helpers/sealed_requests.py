"""Sealed requests to an ASGI app, message by message."""

import asyncio

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyPair, KeyRing
from server_keys._native import MalformedMessageError, RequestSealer
from tests.helpers import asgi

_TITLE = "the sealed request is malformed, incomplete or not authentic"
MALFORMED = {"type": "about:blank", "title": _TITLE, "message": _TITLE}


class Client:
    """Seals one request and opens the response to it."""

    def __init__(self, key_pair: KeyPair) -> None:
        self.sealer = RequestSealer(key_pair.public_key)
        self.headers = [("Ehbp-Encapsulated-Key", self.sealer.encapsulated_key.hex())]

    def seal(self, *parts: bytes) -> list[bytes]:
        return [self.sealer.seal(part) for part in parts]

    def open(self, response: asgi.Response) -> list[bytes]:
        opener = self.sealer.response_opener(bytes.fromhex(response.headers["ehbp-response-nonce"]))
        opened = [opener.feed(piece) for piece in response.pieces]
        if response.is_complete:
            opener.finish()
        return opened


def sealed_call(
    app: ASGIApp, ring: KeyRing, client: Client, path: str, pieces: list[bytes], *, ends: bool = True, **more: object
) -> asgi.Response:
    """Send a sealed request through the middleware."""
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    return asyncio.run(asgi.call(protected, "POST", path, headers=client.headers, pieces=pieces, ends=ends, **more))


def assert_never_whole(client: Client, response: asgi.Response) -> None:
    """Assert that no client takes the body for whole, even where the connection seems to end properly."""
    opener = client.sealer.response_opener(bytes.fromhex(response.headers["ehbp-response-nonce"]))
    opener.feed(response.body)
    with pytest.raises(MalformedMessageError):
        opener.finish()


async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that must not be called."""
    raise AssertionError("the app was called")
