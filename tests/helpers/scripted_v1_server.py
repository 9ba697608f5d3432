"""A server that offers version 1 of the wire, and answers as a test tells it, through an inner transport."""

from collections.abc import Callable, Iterable
from typing import Any

from server_keys import KeyPair
from server_keys._native import RequestOpener, RequestOpenerV1, ResponseSealerV1, XWingKeyPair
from server_keys._sealing.key_entries import PublishedKeys, XWingKey, key_answer, key_id_of
from server_keys._sealing.wire_v1 import (
    RequestHead,
    ResponseHead,
    ResponseHeader,
    is_versioned,
    parsed_request_head,
    parsed_request_header,
    response_head,
    response_header,
)
from server_keys.errors import KeyMismatchError
from tests.helpers.client_flavours import Flavour
from tests.helpers.scripted_server import Server

Change = Callable[[list[bytes]], list[bytes]]


class V1Server(Server):
    """Answers as told. `heads` and `opened` say what arrived, request by request, whatever its wire."""

    def __init__(self, flavour: Flavour) -> None:
        super().__init__(flavour)
        self.xwing_pair = XWingKeyPair.generate()
        self.heads: list[RequestHead | None] = []
        self.knows_v1 = True
        self.answer_v1: Callable[[RequestOpenerV1], Any] = self.sealed_v1
        self.answer_plaintext: Callable[[Any], Any] = lambda _: self.response(200, [b"in plaintext"], {})

    @property
    def key_requests(self) -> list[Any]:
        return [request for request in self.requests if request.url.path == self.key_path]

    @property
    def wires(self) -> list[str]:
        """The wire of each request that was not for the key."""
        values = [request.headers.get("Ehbp-Encapsulated-Key") for request in self.requests]
        of_requests = zip(self.requests, values, strict=True)
        return [
            "none" if value is None else "v1" if is_versioned(value) else "ehbp"
            for request, value in of_requests
            if request.url.path != self.key_path
        ]

    def renew_keys(self) -> None:
        self.key_pair, self.xwing_pair = KeyPair.generate(), XWingKeyPair.generate()

    def handle(self, request: Any) -> Any:
        self.requests.append(request)
        value = request.headers.get("Ehbp-Encapsulated-Key")
        if value is None:
            return self.answer_key() if request.url.path == self.key_path else self.answer_plaintext(request)
        if not is_versioned(value):
            return self._handle_ehbp(request, value)
        return self._handle_v1(request, value) if self.knows_v1 else self.malformed()

    def published(self) -> Any:
        return self.response(200, [self.key_answer()], self.key_headers)

    def key_answer(self) -> bytes:
        key = self.xwing_pair.public_key
        xwing = XWingKey(key_id_of(key), key) if self.knows_v1 else None
        return key_answer(PublishedKeys(self.key_pair.public_key, xwing))

    def malformed(self) -> Any:
        """Answer as a server does that knows plain EHBP alone."""
        return self.response(400, [b'{"title": "malformed"}'], {"Content-Type": "application/problem+json"})

    def sealed_v1(
        self,
        opener: RequestOpenerV1,
        *,
        status: int = 200,
        pieces: Iterable[bytes] = (b"sealed ", b"answer"),
        says: bytes | None = None,
        has_body: bool = True,
        headers: Iterable[tuple[str, str]] = (),
        change: Change = list,
    ) -> Any:
        """Return a sealed response.

        Args:
            opener: that of the request.
            status: the status on the wire.
            pieces: the body's plaintext, a frame each.
            says: what the sealed head says; by default the truth.
            has_body: whether there is a body.
            headers: more headers.
            change: changes the frames, of which the last is the end.
        """
        sealer = opener.response_sealer()
        nonce = nonce_header(sealer, response_head(ResponseHead(status, has_body)) if says is None else says)
        frames = change([*map(sealer.seal, pieces), sealer.seal_end()]) if has_body else change([])
        return self.response(status, frames, [("Ehbp-Response-Nonce", nonce), *headers])

    def _handle_ehbp(self, request: Any, value: str) -> Any:
        opener = RequestOpener(bytes.fromhex(value), [self.key_pair])
        try:
            self.opened.append(opener.feed(request.content))
        except ValueError:
            return self.mismatch()
        self.heads.append(None)
        return self.answer(opener)

    def _handle_v1(self, request: Any, value: str) -> Any:
        header = parsed_request_header(value)
        assert header.key_id in range(1, 256)
        try:
            opener = RequestOpenerV1(header.encapsulated_key, header.sealed_head, self.xwing_pair)
        except KeyMismatchError:
            return self.mismatch()
        head = parsed_request_head(opener.head)
        if not head.has_body:
            opener.expect_no_body()
        body = opener.feed(request.content)
        opener.finish()
        self.heads.append(head)
        self.opened.append(body)
        return self.answer_v1(opener)


def nonce_header(sealer: ResponseSealerV1, head: bytes) -> str:
    """Return the value of `Ehbp-Response-Nonce` whose sealed head says `head`."""
    return response_header(ResponseHeader(sealer.response_nonce, sealer.seal_head(head)))
