"""A server that answers as a test tells it, through an inner transport."""

import json
from collections.abc import Callable
from typing import Any

from server_keys import KeyPair
from server_keys._native import RequestOpener
from server_keys._sealing.protocol import key_config
from tests.helpers.client_flavours import Flavour

URL = "https://model.example/v1/chat"
MISMATCH = json.dumps({"type": "urn:ietf:params:ehbp:error:key-config", "title": "stale"}).encode()


class Server:
    """Answers as told, through an inner transport."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.key_pair = KeyPair.generate()
        self.requests: list[Any] = []
        self.closed: list[str] = []
        self.opened: list[bytes] = []
        self.key_headers = {"Content-Type": "application/ohttp-keys", "Cache-Control": "max-age=60"}
        self.mismatch_headers = {"Content-Type": "application/problem+json"}
        self.mismatch_body = MISMATCH
        self.key_path = "/.well-known/hpke-keys"
        self.answer_key: Callable[[], Any] = self.published
        self.answer: Callable[[RequestOpener], Any] = self.sealed

    @property
    def key_requests(self) -> list[Any]:
        return [request for request in self.requests if request.method == "GET"]

    def handle(self, request: Any) -> Any:
        self.requests.append(request)
        if request.method == "GET":
            return self.answer_key() if request.url.path == self.key_path else self.response(404, [], {})
        opener = RequestOpener(bytes.fromhex(request.headers["Ehbp-Encapsulated-Key"]), [self.key_pair])
        try:
            self.opened.append(opener.feed(request.content))
        except ValueError:
            return self.mismatch()
        return self.answer(opener)

    def response(self, status: int, pieces: list[bytes], headers: Any) -> Any:
        stream = self.flavour.stream(iter(pieces), self.closed)
        return self.flavour.http.Response(status, headers=headers, stream=stream)

    def published(self) -> Any:
        return self.response(200, [key_config(self.key_pair.public_key)], self.key_headers)

    def mismatch(self) -> Any:
        return self.response(422, [self.mismatch_body], self.mismatch_headers)

    def sealed(self, opener: RequestOpener, change: Callable[[bytes], bytes] = bytes) -> Any:
        sealer = opener.response_sealer()
        pieces = [sealer.seal(b"sealed "), change(sealer.seal(b"answer"))]
        return self.response(200, pieces, {"Ehbp-Response-Nonce": sealer.response_nonce.hex()})

    @property
    def inner(self) -> Any:
        return self.flavour.scripted(self.handle)
