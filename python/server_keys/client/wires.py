"""The two ways to seal a request and to open its response: plain EHBP, and version 1 of the wire."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from server_keys._native import RequestSealer, RequestSealerV1
from server_keys._sealing.protocol import MAX_FRAME_BYTES, RESPONSE_NONCE_HEADER, bytes_of_header
from server_keys._sealing.wire_v1 import (
    RequestHead,
    RequestHeader,
    ResponseHead,
    parsed_response_head,
    parsed_response_header,
    request_head,
    request_header,
)
from server_keys.errors import SealedTransportError, StatusMismatchError, UnsealedResponseError

if TYPE_CHECKING:
    from collections.abc import Callable

    from server_keys._native import ResponseOpener, ResponseOpenerV1
    from server_keys.client.key_fetch import XWingReceiver

    Opener = ResponseOpener | ResponseOpenerV1
    Seal = Callable[[bytes | memoryview], bytes]

# An empty frame: its length and its tag.
_END_FRAME_BYTES = 20


class Sealed(Protocol):
    """One request that is being sealed.

    `header` is the value of `Ehbp-Encapsulated-Key`, `end_bytes` how many bytes follow the last frame of a body.
    """

    header: bytes
    end_bytes: int
    is_v1: bool

    def seal(self, plaintext: bytes | memoryview) -> bytes:
        """Return the next frames of the body: all that `plaintext` fills, and a last one of the rest."""

    def seal_last(self, plaintext: bytes | memoryview) -> bytes:
        """Return the last frames of the body, with what ends it."""

    def opener(self, nonce: str, status: int, *, max_frame_bytes: int) -> Opener:
        """Return what opens the response's body.

        Args:
            nonce: the value of the response's `Ehbp-Response-Nonce`.
            status: the response's status.
            max_frame_bytes: the longest frame that it may have, tag included.

        Raises:
            UnsealedResponseError: the header is not one that the server made for this request.
            StatusMismatchError: the server has sealed another status.
        """

    def erase(self) -> None:
        """Wipe the keys."""


class SealedAsEhbp:
    """A request that is sealed as plain EHBP.

    Args:
        public_key: the server's X25519 key, 32 bytes.
    """

    end_bytes = 0
    is_v1 = False

    def __init__(self, public_key: bytes) -> None:
        self._sealer = RequestSealer(public_key)
        self.header: bytes = self._sealer.encapsulated_key.hex().encode()
        self.seal: Seal = partial(self._sealer.seal, max_frame_bytes=MAX_FRAME_BYTES)
        self.seal_last: Seal = self.seal
        self.erase: Callable[[], None] = self._sealer.erase

    def opener(self, nonce: str, status: int, *, max_frame_bytes: int) -> ResponseOpener:
        """Return what opens the response's body. Plain EHBP does not seal its status."""
        del status
        try:
            return self._sealer.response_opener(bytes_of_header(nonce), max_frame_bytes=max_frame_bytes)
        except ValueError as error:
            raise unusable_nonce(error) from None


class SealedAsV1:
    """A request that is sealed as version 1 of the wire says, its method and its target included.

    Args:
        key: the server's X-Wing key.
        head: what the sealed head says.
    """

    end_bytes = _END_FRAME_BYTES
    is_v1 = True

    def __init__(self, key: XWingReceiver, head: RequestHead) -> None:
        self._sealer = RequestSealerV1(key.public_key)
        sealed_head = self._sealer.seal_head(request_head(head))
        header = RequestHeader(key.key_id, self._sealer.encapsulated_key, sealed_head)
        self.header: bytes = request_header(header).encode()
        self.seal: Seal = partial(self._sealer.seal, max_frame_bytes=MAX_FRAME_BYTES)
        self.seal_last: Seal = partial(self._sealer.seal_last, max_frame_bytes=MAX_FRAME_BYTES)
        self.erase: Callable[[], None] = self._sealer.erase

    def opener(self, nonce: str, status: int, *, max_frame_bytes: int) -> ResponseOpenerV1:
        """Return what opens the response's body."""
        try:
            header = parsed_response_header(nonce)
            opener = self._sealer.response_opener(header.nonce, header.sealed_head, max_frame_bytes=max_frame_bytes)
        except ValueError as error:
            raise unusable_nonce(error) from None
        try:
            if not _head_of(opener, status).has_body:
                opener.expect_no_body()
        except SealedTransportError:
            opener.erase()
            raise
        return opener


def _head_of(opener: ResponseOpenerV1, status: int) -> ResponseHead:
    try:
        head = parsed_response_head(opener.head)
    except ValueError as error:
        raise unusable_nonce(error) from None
    if head.status != status:
        raise StatusMismatchError(
            f"the server sealed a response with status {head.status}, but it arrived with status {status}: "
            "something on the way has changed it"
        )
    return head


def unusable_nonce(why: object) -> UnsealedResponseError:
    """Return the error for an `Ehbp-Response-Nonce` that cannot be used."""
    return UnsealedResponseError(f"the header {RESPONSE_NONCE_HEADER} cannot be used: {why}")
