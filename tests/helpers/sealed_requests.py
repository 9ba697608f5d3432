"""Sealed requests to an ASGI app, message by message."""

import asyncio
from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from server_keys import EncryptedBodyMiddleware, KeyPair, KeyRing
from server_keys._native import MalformedMessageError, RequestSealer, RequestSealerV1, ResponseOpener, ResponseOpenerV1
from server_keys._sealing.key_entries import key_id_of, keys_of
from server_keys._sealing.wire_v1 import (
    RequestHead,
    RequestHeader,
    parsed_response_head,
    parsed_response_header,
    request_head,
    request_header,
    sealed_target,
)
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


class ClientV1:
    """Seals one request of version 1 and opens the response to it.

    Args:
        public_key: the server's X-Wing key, or a ring that has it.
        method: the method that is sealed.
        target: the target that is sealed, normalised.
        has_body: what the sealed head says.
    """

    def __init__(
        self, public_key: bytes | KeyRing, method: str = "POST", target: str = "/", *, has_body: bool = True
    ) -> None:
        self.public_key = xwing_key_of(public_key) if isinstance(public_key, KeyRing) else public_key
        self.method = method
        self.sealer = RequestSealerV1(self.public_key)
        head = RequestHead(method.encode(), sealed_target(target.encode()), has_body)
        self.header = RequestHeader(
            key_id_of(self.public_key), self.sealer.encapsulated_key, self.sealer.seal_head(request_head(head))
        )

    @classmethod
    def of_answer(cls, answer: bytes, method: str, target: str, *, has_body: bool = True) -> "ClientV1":
        """Return a client that has fetched this key answer."""
        xwing = keys_of(answer).xwing
        assert xwing is not None
        return cls(xwing.public_key, method, target, has_body=has_body)

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("Ehbp-Encapsulated-Key", request_header(self.header))]

    def seal(self, *parts: bytes) -> list[bytes]:
        """Return the pieces of a whole body: a frame for each part, and the end frame."""
        return [*(self.sealer.seal(part) for part in parts), self.sealer.seal_end()]

    def opener(self, status: int | None, response_nonce: str) -> ResponseOpenerV1:
        """Return the opener of a response whose sealed head says its status."""
        header = parsed_response_header(response_nonce)
        opener = self.sealer.response_opener(header.nonce, header.sealed_head)
        head = parsed_response_head(opener.head)
        assert head.status == status
        assert head.has_body == (self.method != "HEAD" and status not in (204, 304))
        if not head.has_body:
            opener.expect_no_body()
        return opener

    def open(self, response: asgi.Response) -> list[bytes]:
        """Return what each piece of a whole response becomes."""
        opener = self.opener(response.status, response.headers["ehbp-response-nonce"])
        opened = [opener.feed(piece) for piece in response.pieces]
        assert response.is_complete
        opener.finish()
        return opened


def xwing_key_of(ring: KeyRing, epoch: int = 0) -> bytes:
    """Return the X-Wing key of a ring's epoch: 0 is the current one."""
    xwing = ring.accepted_pairs[epoch].xwing
    assert xwing is not None
    return xwing.public_key


def call_v1(
    app: ASGIApp, client: ClientV1, path: str = "/", pieces: Iterable[bytes] = (), **more: Any
) -> asgi.Response:
    """Send a request of version 1 to an app that is protected, with the method that is sealed unless told otherwise."""
    method = more.pop("method", client.method)
    headers = [*client.headers, *more.pop("headers", [])]
    return asyncio.run(asgi.call(app, method, path, headers=headers, pieces=pieces, **more))


def sealed_call(
    app: ASGIApp, ring: KeyRing, client: Client, path: str, pieces: list[bytes], *, ends: bool = True, **more: object
) -> asgi.Response:
    """Send a sealed request through the middleware."""
    protected = EncryptedBodyMiddleware(app, key_ring=ring)
    return asyncio.run(asgi.call(protected, "POST", path, headers=client.headers, pieces=pieces, ends=ends, **more))


def assert_never_whole(client: Client | ClientV1, response: asgi.Response) -> None:
    """Assert that no client takes the body for whole, even where the connection seems to end properly."""
    nonce = response.headers["ehbp-response-nonce"]
    opener: ResponseOpener | ResponseOpenerV1 = (
        client.opener(response.status, nonce)
        if isinstance(client, ClientV1)
        else client.sealer.response_opener(bytes.fromhex(nonce))
    )
    assert not _is_whole(opener, response.body)


def _is_whole(opener: ResponseOpener | ResponseOpenerV1, body: bytes) -> bool:
    try:
        opener.feed(body)
        opener.finish()
    except MalformedMessageError:
        return False
    return True


async def unreachable(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that must not be called."""
    raise AssertionError("the app was called")
