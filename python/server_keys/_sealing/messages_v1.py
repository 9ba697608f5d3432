"""A request of version 1 of the wire, and its response: what they need beyond a body of plain EHBP."""

from collections.abc import Iterable

from starlette.types import Message

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._native import (
    KeyMismatchError,
    RequestOpenerV1,
    ResponseSealerV1,
)
from server_keys._sealing.key_entries import key_id_of
from server_keys._sealing.wire_v1 import (
    RequestHeader,
    ResponseHead,
    ResponseHeader,
    parsed_request_head,
    response_head,
    response_header,
)

_END_FRAME_BYTES = 20
_STATUSES_WITHOUT_BODY = frozenset({204, 304})


class RequestV1:
    """A request of version 1. Its head is opened, so it is authentic before its body arrives.

    Args:
        opener: has opened the head.
        pairs: the epoch that the request is sealed to.
        method: the method that the request arrived with.

    Raises:
        ValueError: the head has another form than a method and a target.
    """

    name = "v1"

    def __init__(self, opener: RequestOpenerV1, pairs: EpochPairs, method: str) -> None:
        self.opener = opener
        self.pairs = pairs
        self.request_id = opener.replay_id
        self._method = method
        self.head = parsed_request_head(opener.head)
        self.has_body = self.head.has_body
        if not self.has_body:
            opener.expect_no_body()

    def is_unsealed(self, message: Message) -> bool:
        """Return False: the head says whether there is a body."""
        return False

    def can_begin(self, *, has_plaintext: bool, has_ended: bool) -> bool:
        """Return whether the first frame is opened, or the end. Apps then see the length of a short body."""
        return has_plaintext or has_ended

    def response(self) -> "ResponseV1":
        """Return what the response needs."""
        return ResponseV1(self.opener.response_sealer(), to_head=self._method == "HEAD")


class ResponseV1:
    """A response of version 1: its status is sealed, and its body has an end frame.

    Args:
        sealer: has sealed nothing yet.
        to_head: whether it answers HEAD.
    """

    end_bytes = _END_FRAME_BYTES

    def __init__(self, sealer: ResponseSealerV1, *, to_head: bool) -> None:
        self.sealer = sealer
        self._to_head = to_head

    def has_body(self, status: int) -> bool:
        """Return whether HTTP lets a body follow. If not, the sealed head says that nothing does."""
        return not self._to_head and status not in _STATUSES_WITHOUT_BODY

    def header(self, status: int) -> str:
        """Return the nonce and the sealed head."""
        sealed_head = self.sealer.seal_head(response_head(ResponseHead(status, self.has_body(status))))
        return response_header(ResponseHeader(self.sealer.response_nonce, sealed_head))

    def seal_last(self, plaintext: bytes | memoryview, /, *, max_frame_bytes: int) -> bytes:
        """Return the last frames of the body, and the end frame."""
        return self.sealer.seal_last(plaintext, max_frame_bytes=max_frame_bytes)


def opened_v1(header: RequestHeader, method: str, accepted: Iterable[EpochPairs], max_frame_bytes: int) -> RequestV1:
    """Open the head of a request, by the accepted key that its key id names. Two of them may have one id.

    Args:
        header: the header of the request.
        method: the method that it arrived with.
        accepted: the pairs that it may be sealed to.
        max_frame_bytes: the longest frame that is taken.

    Raises:
        KeyMismatchError: no accepted key has the id, or the head opens under none that has.
        MalformedMessageError: the X25519 half of the encapsulated key is a point of small order.
        ValueError: the head opens, and has another form than a method and a target.
    """
    for pairs in accepted:
        pair = pairs.xwing
        if pair is None or pairs.erased or key_id_of(pair.public_key) != header.key_id:
            continue
        try:
            opener = RequestOpenerV1(header.encapsulated_key, header.sealed_head, pair, max_frame_bytes=max_frame_bytes)
        except KeyMismatchError:
            continue
        try:
            return RequestV1(opener, pairs, method)
        except ValueError:
            opener.erase()
            raise
    raise KeyMismatchError("the head opens under no accepted key")
