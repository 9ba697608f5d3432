"""What a sealed request and its response need to know of the wire that they came by: plain EHBP, or its version 1."""

from typing import Protocol

from starlette.types import Message

from server_keys._keys.epoch_pairs import EpochPairs
from server_keys._native import RequestOpener, ResponseSealer


class Opener(Protocol):
    """Opens a request's body. The native module documents what each method does."""

    def feed(self, piece: bytes, /) -> bytes: ...
    def bytes_to_open(self, piece_bytes: int, /) -> int: ...
    @property
    def held_bytes(self) -> int: ...
    def finish(self) -> None: ...
    def erase(self) -> None: ...


class Sealer(Protocol):
    """Seals a response's body. The native module documents what each method does."""

    def seal(self, plaintext: bytes | memoryview, /, *, max_frame_bytes: int) -> bytes: ...
    def seal_message(self, message: Message, /) -> Message | None: ...
    @property
    def streamed(self) -> tuple[int, int]: ...
    def erase(self) -> None: ...


class ResponseWire(Protocol):
    """The response to one request."""

    @property
    def sealer(self) -> Sealer:
        """Seals the body."""

    @property
    def end_bytes(self) -> int:
        """How many bytes end a body."""

    def has_body(self, status: int) -> bool:
        """Return whether a response with this status has a body on the wire."""

    def header(self, status: int) -> str:
        """Return the value of `Ehbp-Response-Nonce`. To be called once, before anything is sealed."""

    def seal_last(self, plaintext: bytes | memoryview, /, *, max_frame_bytes: int) -> bytes:
        """Return the last frames of a body that the app has ended, and what ends it. Nothing is sealed after it."""


class RequestWire(Protocol):
    """One request."""

    @property
    def name(self) -> str:
        """What operators and apps call the wire."""

    @property
    def opener(self) -> Opener:
        """Opens the body."""

    @property
    def has_body(self) -> bool:
        """Whether the request has a body, as far as is known before it arrives."""

    @property
    def pairs(self) -> EpochPairs:
        """The epoch that the request is sealed to, once that is known."""

    @property
    def request_id(self) -> bytes:
        """What no other request has that is sealed to the same epoch."""

    def is_unsealed(self, message: Message) -> bool:
        """Return whether the request, up to this message, is one without a body that has no sealed form."""

    def can_begin(self, *, has_plaintext: bool, has_ended: bool) -> bool:
        """Return whether the app can be called: what has arrived shows that the request is authentic."""

    def response(self) -> ResponseWire:
        """Return what the response needs.

        Raises:
            EntropyError: the random source failed.
        """


class PlainRequest:
    """A request of plain EHBP. Its first frame tells whether it is authentic; without a body it is not sealed.

    Args:
        encapsulated_key: what its header carries. Each request has one of its own, and nobody can change it: the keys
            of the frames are derived from it.
        accepted: the epochs that it may be sealed to.
        max_frame_bytes: the longest frame that is taken.

    Raises:
        MalformedMessageError: the encapsulated key has another length than 32 bytes.
    """

    name = "ehbp"
    has_body = True

    def __init__(self, encapsulated_key: bytes, accepted: tuple[EpochPairs, ...], max_frame_bytes: int) -> None:
        key_pairs = [pairs.x25519 for pairs in accepted]
        self.opener = RequestOpener(encapsulated_key, key_pairs, max_frame_bytes=max_frame_bytes)
        self.request_id = encapsulated_key
        self._accepted = accepted
        self._anything_arrived = False

    @property
    def pairs(self) -> EpochPairs:
        """The epoch that the request is sealed to. To be asked for when the first frame is opened."""
        index = self.opener.opened_by
        if index is None:
            raise RuntimeError("no frame of the request is opened yet")
        return self._accepted[index]

    def is_unsealed(self, message: Message) -> bool:
        """Return whether the body has ended before its first byte.

        Raises:
            MalformedMessageError: it has, and the encapsulated key is a point of small order.
        """
        self._anything_arrived = self._anything_arrived or bool(message.get("body"))
        if self._anything_arrived or message.get("more_body", False):
            return False
        self.opener.finish_without_body()
        return True

    def can_begin(self, *, has_plaintext: bool, has_ended: bool) -> bool:
        """Return whether the first frame, which may be empty, is opened."""
        return self.opener.opened

    def response(self) -> "PlainResponse":
        """Return what the response needs."""
        return PlainResponse(self.opener.response_sealer())


class PlainResponse:
    """A response of plain EHBP. Its head is not sealed, and its body has no end of its own."""

    end_bytes = 0

    def __init__(self, sealer: ResponseSealer) -> None:
        self.sealer = sealer

    def has_body(self, status: int) -> bool:
        """Return True: whatever an app sends is sealed."""
        return True

    def header(self, status: int) -> str:
        """Return the nonce in hex digits."""
        return self.sealer.response_nonce.hex()

    def seal_last(self, plaintext: bytes | memoryview, /, *, max_frame_bytes: int) -> bytes:
        """Return the last frames of the body. Nothing marks its end."""
        return self.sealer.seal(plaintext, max_frame_bytes=max_frame_bytes)
