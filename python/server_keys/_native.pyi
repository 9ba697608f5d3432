"""The native half of server_keys: key pairs in protected memory, messages sealed to them, and groups.

X25519 pairs are for EHBP, X-Wing pairs for the wire's version 1.

It is written in Rust: rust/core has the operations, rust/binding makes them a Python module.
"""

import os
from collections.abc import Sequence
from typing import Any, NoReturn, Self, final

from typing_extensions import Buffer

__all__ = [
    "Engine",
    "EntropyError",
    "FrameTooLargeError",
    "GroupKeys",
    "GroupSecretError",
    "IdentityFileError",
    "InvalidPublicKeyError",
    "KeyErasedError",
    "KeyMismatchError",
    "KeyPair",
    "MalformedMessageError",
    "MissingEndError",
    "ReplayTable",
    "ReplayTableError",
    "ReplayTableFullError",
    "ReplayTableLostError",
    "RequestOpener",
    "RequestOpenerV1",
    "RequestSealer",
    "RequestSealerV1",
    "ResponseOpener",
    "ResponseOpenerV1",
    "ResponseSealer",
    "ResponseSealerV1",
    "SigningKey",
    "XWingKeyPair",
    "XWingPublicKey",
    "decode_base64url",
    "encode_base64url",
    "engine",
    "erase_in",
    "generate_key_pairs",
    "is_signature",
    "is_signing_public_key",
    "open_box",
    "seal_boxes",
]

class InvalidPublicKeyError(ValueError):
    """A peer's public key has the wrong length or is a point of small order."""

class KeyErasedError(RuntimeError):
    """The key is gone: erased, or left in the process that this one was forked from."""

class EntropyError(RuntimeError):
    """The system's random source failed."""

class MalformedMessageError(ValueError):
    """A sealed message is malformed, incomplete or not authentic. The error does not say which, on purpose."""

class MissingEndError(MalformedMessageError):
    """A sealed message ended before its end frame came: it was cut on its way, or its sender gave up."""

class FrameTooLargeError(ValueError):
    """A frame announces more bytes than the limit."""

class KeyMismatchError(ValueError):
    """A sealed request opens under none of the accepted keys."""

class GroupSecretError(ValueError):
    """A group secret, or the file that holds it, cannot be used. The message says why, without the secret."""

class IdentityFileError(ValueError):
    """The file of an identity cannot be used or written. The message names it and says why, without the key."""

class ReplayTableError(RuntimeError):
    """A table of seen requests cannot be made, opened or used."""

class ReplayTableFullError(ReplayTableError):
    """A table of seen requests has no room for one more."""

class ReplayTableLostError(ReplayTableError):
    """The file of a table of seen requests was resized or overwritten."""

@final
class Engine:
    """What computes in this process, from `engine()`. Its text is a sentence."""

    @property
    def keys(self) -> str:
        """What computes the public keys of single key pairs: `s2n-bignum` or `dalek`."""

    @property
    def exchanges(self) -> str:
        """What computes shared secrets: `s2n-bignum` or `dalek`."""

    @property
    def batches(self) -> str:
        """What computes the public keys of pairs that are made together.

        Where the processor has AVX-512 IFMA: eight in parallel. Elsewhere s2n-bignum or dalek, one after the other.
        """

    @property
    def aes_gcm(self) -> str:
        """What computes AES-256-GCM: `AWS-LC` or `RustCrypto`."""

    @property
    def why_not(self) -> str | None:
        """Why dalek and RustCrypto compute, or None where AWS-LC does."""

def engine() -> Engine:
    """Return what computes X25519 keys, exchanges, batches of keys, and AES-256-GCM in this process.

    AWS-LC does where the build has it and it passed a comparison with dalek and RustCrypto, which compute elsewhere.
    `SERVER_KEYS_ENGINE=dalek` in the environment switches it off.

    Warns:
        RuntimeWarning: it failed that comparison, or the environment variable has another value. It comes once in a
            process, from here or from what makes the first key.
    """

@final
class KeyPair:
    """An X25519 key pair (RFC 7748) whose private key stays in native memory.

    The private key is locked in memory, left out of core dumps, wiped in a forked child, by `erase()` and when the last
    reference goes. Nothing in Python can read, copy or pickle it. Two pairs are equal when their public keys are.
    """

    def __new__(cls, *_arguments: object, **_keywords: object) -> Self:
        """Raise TypeError: `generate` and `from_private_key` make key pairs."""

    @staticmethod
    def generate() -> KeyPair:
        """Make a key pair from the system's random source, off the GIL.

        Raises:
            EntropyError: the random source failed.
            MemoryError: the system has no memory for the private key.
        """

    @staticmethod
    def from_private_key(private_key: Buffer) -> KeyPair:
        """Make the key pair of an existing private key, such as a test vector's.

        Args:
            private_key: 32 bytes, as in RFC 7748. The caller must wipe its own copy.

        Raises:
            TypeError: `private_key` is not bytes-like.
            ValueError: it has another length than 32 bytes.
        """

    @property
    def public_key(self) -> bytes:
        """The public key: 32 bytes, as RFC 7748 encodes it. It stays readable after `erase()`."""

    @property
    def erased(self) -> bool:
        """Whether the private key is gone: erased, or left in the process that this one was forked from."""

    def exchange(self, peer_public_key: Buffer) -> bytes:
        """Agree on a secret with the owner of a public key (X25519, RFC 7748 section 6.1), off the GIL.

        Args:
            peer_public_key: the peer's raw public key, 32 bytes.

        Returns:
            The shared secret, 32 bytes. Derive keys from it (HKDF); do not use it as a key itself.

        Raises:
            InvalidPublicKeyError: the key has another length than 32 bytes, or is a point of small order.
            KeyErasedError: the private key is gone.
            TypeError: `peer_public_key` is not bytes-like.
        """

    def erase(self) -> None:
        """Wait for exchanges that have begun, then wipe the private key. Erasing twice is fine."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, memo: object, /) -> NoReturn: ...
    def __reduce_ex__(self, protocol: object, /) -> NoReturn: ...

@final
class XWingKeyPair:
    """An X-Wing key pair (draft-connolly-cfrg-xwing-kem: ML-KEM-768 and X25519, KEM 0x647a of HPKE).

    Its seed stays in native memory, protected as a `KeyPair`'s private key is; ML-KEM's private key is made of it at
    each use, and wiped after it. Two pairs are equal when their public keys are.
    """

    def __new__(cls, *_arguments: object, **_keywords: object) -> Self:
        """Raise TypeError: `generate` and `from_seed` make key pairs."""

    @staticmethod
    def generate() -> XWingKeyPair:
        """Make a key pair from the system's random source, off the GIL.

        Raises:
            EntropyError: the random source failed.
            MemoryError: the system has no memory for the seed.
        """

    @staticmethod
    def from_seed(seed: Buffer) -> XWingKeyPair:
        """Make the key pair of an existing seed, such as a test vector's, off the GIL.

        Args:
            seed: 32 bytes, as in the draft's GenerateKeyPairDerand. The caller must wipe its own copy.

        Raises:
            TypeError: `seed` is not bytes-like.
            ValueError: it has another length than 32 bytes.
        """

    @property
    def public_key(self) -> bytes:
        """The public key: 1,216 bytes, ML-KEM's 1,184 and X25519's 32. It stays readable after `erase()`."""

    @property
    def erased(self) -> bool:
        """Whether the seed is gone: erased, or left in the process that this one was forked from."""

    def erase(self) -> None:
        """Wait for uses that have begun, then wipe the seed. Erasing twice is fine."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, memo: object, /) -> NoReturn: ...
    def __reduce_ex__(self, protocol: object, /) -> NoReturn: ...

def generate_key_pairs(count: int) -> list[KeyPair]:
    """Make many key pairs at once, off the GIL, on all processors where that is faster.

    Args:
        count: how many, from 0 to 1,048,576.

    Raises:
        EntropyError: the random source failed.
        MemoryError: the system has no memory for so many.
        TypeError: `count` is not an int, or is a bool.
        ValueError: `count` is negative or above 1,048,576.
    """

def erase_in(key_pair: KeyPair | XWingKeyPair, delay_s: float) -> None:
    """Have a key pair's private key erased after some seconds by a thread that needs neither an event loop nor the GIL.

    Of several calls the earliest deadline counts. Time goes on while the machine sleeps, where the system has a clock
    that does. The thread exists while there are deadlines; it keeps no pair alive.

    Args:
        key_pair: the pair, of either kind.
        delay_s: seconds; from zero down, it is erased at once.

    Raises:
        RuntimeError: the system refused the thread.
    """

@final
class XWingPublicKey:
    """An X-Wing public key that is ready for many requests, with ML-KEM's matrix (6 KB): making that takes 17 us.

    Args:
        public_key: 1,216 bytes.

    Raises:
        InvalidPublicKeyError: the key has another length, or its ML-KEM half is no encapsulation key (FIPS 203, section
            7.2). Whether its X25519 half is a point of small order is found when something is sealed to it.
    """

    def __new__(cls, public_key: Buffer) -> XWingPublicKey: ...

@final
class ReplayTable:
    """The ids of the requests that were seen since a key pair was made. It forgets none, and takes 16 bytes for each.

    Of all threads that add one id, and all processes that have the table's file open, exactly one is told that it is
    new. No thread waits for another. A process may be killed at any time. Each table has a secret by which ids are
    mixed, so clients that choose theirs can make neither two of them meet nor the table slow.

    Args:
        capacity: how many ids it takes, from 1 to 268,435,456. It lies in memory of this process.

    Raises:
        EntropyError: the random source failed.
        MemoryError: the system has no memory for it.
        ValueError: `capacity` is out of its range.
    """

    def __new__(cls, capacity: int = 262144) -> ReplayTable: ...
    @staticmethod
    def make_shared(descriptor: int, capacity: int = 262144) -> ReplayTable:
        """Make a table in an empty file, off the GIL. Others may open it afterwards, and not before.

        All of the file is allocated now: a file system that is full says so, and not by a signal when it is written to.

        Args:
            descriptor: of a regular file, open for reading and writing. The table has one of its own.
            capacity: how many ids it takes, from 1 to 268,435,456.

        Raises:
            EntropyError: the random source failed.
            OSError: the descriptor is not open.
            ReplayTableError: the file is not empty or no regular one, or the system has no room for it.
            ValueError: `capacity` is out of its range, or the descriptor is negative.
        """

    @staticmethod
    def open_shared(descriptor: int) -> ReplayTable:
        """Open the table that this process or another one made in a file, off the GIL.

        Args:
            descriptor: of the file, open for reading and writing. The table has one of its own.

        Raises:
            OSError: the descriptor is not open.
            ReplayTableError: the file is no table, or is one of another version.
            ValueError: the descriptor is negative.
        """

    def add(self, request_id: Buffer) -> bool:
        """Add the id of a request. Return True if it is new, False if it was there before.

        Args:
            request_id: from 8 to 32 bytes.

        Raises:
            ReplayTableFullError: it is new, and there is no room for it.
            ReplayTableLostError: the table's file was resized or overwritten, so nobody knows what was seen.
            ValueError: it has another length.
        """

    def require(self) -> None:
        """Check that the table's file is still what it was. It may have lost its name: those who have it open share it.

        Raises:
            ReplayTableLostError: it was resized or overwritten.
        """

    @property
    def used(self) -> int:
        """How many ids it holds. Threads that add the last ones together may go beyond the capacity by one each."""

    @property
    def capacity(self) -> int:
        """How many ids it takes."""

    def __reduce_ex__(self, protocol: object, /) -> NoReturn: ...

@final
class RequestOpener:
    """Opens one sealed request on the server (EHBP over HPKE base mode, RFC 9180).

    The first frame tells to which of the key pairs the request is sealed. After it none of them is needed, so erasing
    them cannot hurt a request in flight.

    Args:
        encapsulated_key: the value of the header `Ehbp-Encapsulated-Key`, 32 bytes.
        key_pairs: the accepted key pairs, in the order in which they are tried.
        max_frame_bytes: the longest accepted frame, tag included.

    Raises:
        MalformedMessageError: the encapsulated key has another length.
    """

    def __new__(
        cls, encapsulated_key: Buffer, key_pairs: Sequence[KeyPair], *, max_frame_bytes: int = 16777216
    ) -> RequestOpener: ...
    @property
    def opened(self) -> bool:
        """Whether the first frame is opened: then the request is authentic so far, and a response can be sealed."""

    @property
    def opened_by(self) -> int | None:
        """Which of the key pairs the request is sealed to, from 0 on; None until the first frame is opened."""

    def feed(self, piece: Buffer) -> bytes:
        """Take the next piece of the sealed body, of any size, and return the plaintext of the frames it completes.

        Do not read the body further after an error.

        Raises:
            KeyMismatchError: the first frame opens under no accepted key.
            FrameTooLargeError: a frame announces more than `max_frame_bytes`.
            MalformedMessageError: anything else is wrong.
        """

    @property
    def held_bytes(self) -> int:
        """How many bytes of memory are taken for the part of a frame that has arrived, or kept for those that follow.

        A frame that is left half sent takes at most twice what has arrived of it, or 64 KiB + 16 bytes.

        Raises:
            KeyErasedError: the opener is erased, or this process was forked from its own.
        """

    def bytes_to_open(self, piece_bytes: int) -> int:
        """Return how many bytes `feed` would open, at most, of a next piece of this length.

        It is 0 for a piece that completes no frame.

        Raises:
            KeyErasedError: the opener is erased, or this process was forked from its own.
        """

    def finish(self) -> None:
        """Say that the body has ended.

        Raises:
            MalformedMessageError: it ended inside a frame, or before the first one.
        """

    def finish_without_body(self) -> None:
        """Say that there is no body at all.

        Raises:
            MalformedMessageError: the encapsulated key is a point of small order (RFC 7748, section 6.1).
        """

    def response_sealer(self) -> ResponseSealer:
        """Make the sealer of the response to this request, with a random nonce.

        Raises:
            EntropyError: the random source failed.
            RuntimeError: no frame is opened yet.
        """

    def erase(self) -> None:
        """Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.

        Every later use raises `KeyErasedError`.
        """

@final
class ResponseSealer:
    """Seals one response on the server, with AES-256-GCM under a key that both sides derive from the request."""

    @property
    def response_nonce(self) -> bytes:
        """The value of the header `Ehbp-Response-Nonce`, 32 bytes."""

    def seal(self, plaintext: Buffer, *, max_frame_bytes: int = 16777216) -> bytes:
        """Return the next piece of the body in as few frames as that takes, each 20 bytes longer; none for no bytes.

        Args:
            plaintext: the piece.
            max_frame_bytes: the longest frame to make, tag included, from 17 bytes to 16 MiB. Another number counts as
                the nearest of them.
        """

    def seal_message(self, message: object) -> dict[str, Any] | None:
        """Return a copy of an ASGI message whose `body` is sealed as one frame, for the server to send.

        It takes a piece of a body that goes on: a dict with the type `http.response.body`, at most 64 KiB of `body`,
        and `more_body`. For anything else it seals nothing and returns None.

        Raises:
            KeyErasedError: the sealer is erased, or this process was forked from its own.
        """

    @property
    def streamed(self) -> tuple[int, int]:
        """How many frames `seal_message` has made, and how many bytes those have. Erasing does not change it."""

    def erase(self) -> None:
        """Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.

        Every later use raises `KeyErasedError`.
        """

@final
class RequestSealer:
    """Seals one request on the client (EHBP over HPKE base mode, RFC 9180), and makes the opener of the response.

    Args:
        public_key: the server's public key, 32 bytes.

    Raises:
        InvalidPublicKeyError: the key has another length than 32 bytes, or is a point of small order.
        EntropyError: the random source failed.
    """

    def __new__(cls, public_key: Buffer) -> RequestSealer: ...
    @property
    def encapsulated_key(self) -> bytes:
        """The value of the header `Ehbp-Encapsulated-Key`, 32 bytes."""

    def seal(self, plaintext: Buffer, *, max_frame_bytes: int = 16777216) -> bytes:
        """Return the next piece of the body in as few frames as that takes, each 20 bytes longer; none for no bytes.

        Args:
            plaintext: the piece.
            max_frame_bytes: the longest frame to make, tag included, from 17 bytes to 16 MiB. Another number counts as
                the nearest of them.
        """

    def response_opener(self, response_nonce: Buffer, *, max_frame_bytes: int = 16777216) -> ResponseOpener:
        """Make the opener of the response.

        Args:
            response_nonce: the value of the header `Ehbp-Response-Nonce`, 32 bytes.
            max_frame_bytes: the longest accepted frame, tag included.

        Raises:
            MalformedMessageError: the nonce has another length.
        """

    def erase(self) -> None:
        """Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.

        Every later use raises `KeyErasedError`.
        """

@final
class ResponseOpener:
    """Opens one sealed response on the client."""

    def feed(self, piece: Buffer) -> bytes:
        """Take the next piece of the sealed body, of any size, and return the plaintext of the frames it completes.

        Raises:
            FrameTooLargeError: a frame announces more than `max_frame_bytes`.
            MalformedMessageError: anything else is wrong. Do not read the body further then.
        """

    def finish(self) -> None:
        """Say that the body has ended.

        Raises:
            MalformedMessageError: it ended inside a frame.
        """

    def erase(self) -> None:
        """Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.

        Every later use raises `KeyErasedError`.
        """

@final
class RequestOpenerV1:
    """Opens one request of the wire's version 1 on the server (HPKE base mode with X-Wing, RFC 9180).

    Its head is opened at once, off the GIL. That costs one trial, whoever sent the request. After it the key pair is
    not needed, so erasing it cannot hurt a request in flight. Until `finish` returns, the body may not be whole.

    Args:
        encapsulated_key: what the client sent to agree on keys, 1,120 bytes.
        sealed_head: what `RequestSealerV1.seal_head` made.
        key_pair: the key pair that the request names.
        max_frame_bytes: the longest accepted frame, tag included.

    Raises:
        KeyMismatchError: the head does not open under this key pair, or the pair is erased.
        MalformedMessageError: the encapsulated key has another length, its X25519 half is a point of small order, or
            the sealed head has less than 16 bytes.
    """

    def __new__(
        cls, encapsulated_key: Buffer, sealed_head: Buffer, key_pair: XWingKeyPair, *, max_frame_bytes: int = 16777216
    ) -> RequestOpenerV1: ...
    @property
    def head(self) -> bytes:
        """What the client sealed as the head."""

    @property
    def replay_id(self) -> bytes:
        """The number by which a server knows the request again: 8 bytes. Who repeats the request cannot change it."""

    @property
    def ended(self) -> bool:
        """Whether the body is at its end: the end frame came, or `expect_no_body` was called."""

    def expect_no_body(self) -> None:
        """Say that the head announces no body. After it any byte that is fed is an error, and `finish` passes.

        Raises:
            MalformedMessageError: some of a body came already.
        """

    def feed(self, piece: Buffer) -> bytes:
        """Take the next piece of the sealed body, of any size, and return the plaintext of the frames it completes.

        After an error the body is not whole, and nothing more of it is opened.

        Raises:
            FrameTooLargeError: a frame announces more than `max_frame_bytes`.
            MalformedMessageError: anything else is wrong, like a frame of less than 16 bytes, or a byte after the end.
        """

    @property
    def held_bytes(self) -> int:
        """How many bytes of memory are taken for the part of a frame that has arrived, or kept for those that follow.

        A frame that is left half sent takes at most twice what has arrived of it, or 64 KiB + 16 bytes.

        Raises:
            KeyErasedError: the opener is erased, or this process was forked from its own.
        """

    def bytes_to_open(self, piece_bytes: int) -> int:
        """Return how many bytes `feed` would open, at most, of a next piece of this length.

        It is 0 for a piece that completes no frame.

        Raises:
            KeyErasedError: the opener is erased, or this process was forked from its own.
        """

    def finish(self) -> None:
        """Say that the body has ended. Only when this returns is it whole.

        Raises:
            MalformedMessageError: something was wrong before.
            MissingEndError: the end frame did not come.
        """

    def response_sealer(self) -> ResponseSealerV1:
        """Make the sealer of the response to this request, with a random nonce.

        Raises:
            EntropyError: the random source failed.
        """

    def erase(self) -> None:
        """Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.

        Every later use raises `KeyErasedError`.
        """

@final
class ResponseSealerV1:
    """Seals one response of the wire's version 1 on the server: its head, then its body, then its end.

    The keys are AES-256-GCM's, derived from the request. Parts that are sealed in another order raise `RuntimeError`.
    """

    @property
    def response_nonce(self) -> bytes:
        """What the client needs to derive the same keys, 32 bytes."""

    def seal_head(self, head: Buffer) -> bytes:
        """Return the sealed head, 16 bytes longer. It comes first, and once.

        Raises:
            RuntimeError: the head is sealed already.
        """

    def seal(self, plaintext: Buffer, *, max_frame_bytes: int = 16777216) -> bytes:
        """Return the next piece of the body in as few frames as that takes, each 20 bytes longer; none for no bytes.

        Args:
            plaintext: the piece.
            max_frame_bytes: the longest frame to make, tag included, from 17 bytes to 16 MiB. Another number counts as
                the nearest of them.

        Raises:
            RuntimeError: the head is not sealed yet, or the end is.
        """

    def seal_last(self, plaintext: Buffer, *, max_frame_bytes: int = 16777216) -> bytes:
        """Return the last piece of the body as `seal` does, and the frame that ends it. Nothing is sealed after it.

        Args:
            plaintext: the piece.
            max_frame_bytes: as for `seal`.

        Raises:
            RuntimeError: the head is not sealed yet, or the end is.
        """

    def seal_end(self) -> bytes:
        """Return the frame that ends the body: 20 bytes. Nothing is sealed after it.

        Raises:
            RuntimeError: the head is not sealed yet, or the end is.
        """

    def seal_message(self, message: object) -> dict[str, Any] | None:
        """Return a copy of an ASGI message whose `body` is sealed as one frame, for the server to send.

        It takes a piece of a body that goes on: a dict with the type `http.response.body`, at most 64 KiB of `body`,
        and `more_body`. For anything else it seals nothing and returns None.

        Raises:
            KeyErasedError: the sealer is erased, or this process was forked from its own.
            RuntimeError: the head is not sealed yet, or the end is.
        """

    @property
    def streamed(self) -> tuple[int, int]:
        """How many frames `seal_message` has made, and how many bytes those have. Erasing does not change it."""

    def erase(self) -> None:
        """Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.

        Every later use raises `KeyErasedError`.
        """

@final
class RequestSealerV1:
    """Seals one request of the wire's version 1 on the client: its head, then its body, then its end.

    The keys are agreed on off the GIL (HPKE base mode with X-Wing, RFC 9180). Parts that are sealed in another order
    raise `RuntimeError`.

    Args:
        public_key: the server's X-Wing public key: 1,216 bytes, or what `XWingPublicKey` has made of them.

    Raises:
        InvalidPublicKeyError: the key has another length, its X25519 half is a point of small order, or its ML-KEM half
            is no encapsulation key (FIPS 203, section 7.2).
        EntropyError: the random source failed.
    """

    def __new__(cls, public_key: Buffer | XWingPublicKey) -> RequestSealerV1: ...
    @property
    def encapsulated_key(self) -> bytes:
        """What the server needs to agree on the same keys, 1,120 bytes."""

    def seal_head(self, head: Buffer) -> bytes:
        """Return the sealed head, 16 bytes longer. It comes first, and once.

        Raises:
            RuntimeError: the head is sealed already.
        """

    def seal(self, plaintext: Buffer, *, max_frame_bytes: int = 16777216) -> bytes:
        """Return the next piece of the body in as few frames as that takes, each 20 bytes longer; none for no bytes.

        Args:
            plaintext: the piece.
            max_frame_bytes: the longest frame to make, tag included, from 17 bytes to 16 MiB. Another number counts as
                the nearest of them.

        Raises:
            RuntimeError: the head is not sealed yet, or the end is.
        """

    def seal_last(self, plaintext: Buffer, *, max_frame_bytes: int = 16777216) -> bytes:
        """Return the last piece of the body as `seal` does, and the frame that ends it. Nothing is sealed after it.

        Args:
            plaintext: the piece.
            max_frame_bytes: as for `seal`.

        Raises:
            RuntimeError: the head is not sealed yet, or the end is.
        """

    def seal_end(self) -> bytes:
        """Return the frame that ends the body: 20 bytes. Nothing is sealed after it.

        Raises:
            RuntimeError: the head is not sealed yet, or the end is.
        """

    def response_opener(
        self, response_nonce: Buffer, sealed_head: Buffer, *, max_frame_bytes: int = 16777216
    ) -> ResponseOpenerV1:
        """Make the opener of the response, and open its head.

        Args:
            response_nonce: what `ResponseSealerV1.response_nonce` was, 32 bytes.
            sealed_head: what `ResponseSealerV1.seal_head` made.
            max_frame_bytes: the longest accepted frame, tag included.

        Raises:
            MalformedMessageError: the nonce has another length, or the head does not open.
        """

    def erase(self) -> None:
        """Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.

        Every later use raises `KeyErasedError`.
        """

@final
class ResponseOpenerV1:
    """Opens one response of the wire's version 1 on the client. Until `finish` returns, the body may not be whole."""

    @property
    def head(self) -> bytes:
        """What the server sealed as the head."""

    @property
    def ended(self) -> bool:
        """Whether the body is at its end: the end frame came, or `expect_no_body` was called."""

    def expect_no_body(self) -> None:
        """Say that the head announces no body. After it any byte that is fed is an error, and `finish` passes.

        Raises:
            MalformedMessageError: some of a body came already.
        """

    def feed(self, piece: Buffer) -> bytes:
        """Take the next piece of the sealed body, of any size, and return the plaintext of the frames it completes.

        After an error the body is not whole, and nothing more of it is opened.

        Raises:
            FrameTooLargeError: a frame announces more than `max_frame_bytes`.
            MalformedMessageError: anything else is wrong, like a frame of less than 16 bytes, or a byte after the end.
        """

    def finish(self) -> None:
        """Say that the body has ended. Only when this returns is it whole.

        Raises:
            MalformedMessageError: something was wrong before.
            MissingEndError: the end frame did not come.
        """

    def erase(self) -> None:
        """Wait for other threads that use it, then wipe its keys and buffers. Erasing twice is fine.

        Every later use raises `KeyErasedError`.
        """

@final
class GroupKeys:
    """The keys that the members of a group derive from its secret. They stay in native memory.

    Nothing in Python can read, copy or pickle them. In a forked child they are gone.
    """

    @staticmethod
    def of_name(name: Buffer) -> GroupKeys:
        """Derive the keys of a group on one host from its name.

        Whoever knows the name knows the keys. So something else must keep strangers from the group's store: the owner
        and the mode of its directory.

        Args:
            name: any bytes.

        Raises:
            MemoryError: the system has no memory for the keys.
        """

    @staticmethod
    def from_secret_text(text: str, label: Buffer) -> list[GroupKeys]:
        """Derive the keys of each secret in a text, such as an environment variable's.

        Args:
            text: one or two secrets of 64 or more hex digits, separated by white space or commas; at most 4096 bytes.
            label: tells apart groups that have the same secret.

        Returns:
            The keys of each secret, in the order of the text.

        Raises:
            GroupSecretError: the text is something else.
            MemoryError: the system has no memory for the keys.
        """

    @staticmethod
    def from_secret_file(path: str | os.PathLike[str], label: Buffer) -> list[GroupKeys]:
        """Do the same with the content of a file, off the GIL. The content never becomes a Python object.

        Args:
            path: a regular file, or a link to one. Nobody but its owner may be able to write it, and not every user to
                read it.
            label: tells apart groups that have the same secret.

        Returns:
            The keys of each secret, in the order of the file.

        Raises:
            GroupSecretError: the file cannot be read, others have too much access to it, or its content is something
                else. The message names the file.
            MemoryError: the system has no memory for the keys.
        """

    @property
    def group_id(self) -> bytes:
        """The name of the group: 16 bytes, derived one way from its secret and its label, or from its name."""

    def register_tag(self, register: Buffer) -> bytes:
        """Return the tag by which members know that a member wrote this register: 32 bytes.

        Raises:
            KeyErasedError: the keys are left in the process that this one was forked from.
        """

    def is_register_tag(self, register: Buffer, tag: Buffer) -> bool:
        """Return whether a member wrote this register, in a time that does not depend on the tag's bytes.

        Raises:
            KeyErasedError: the keys are left in the process that this one was forked from.
        """

    def ask_tag(self, ask: Buffer) -> bytes:
        """Return the tag by which members know that a member wrote this ask: 32 bytes. No register has it.

        Raises:
            KeyErasedError: the keys are left in the process that this one was forked from.
        """

    def is_ask_tag(self, ask: Buffer, tag: Buffer) -> bool:
        """Return whether a member wrote this ask, in a time that does not depend on the tag's bytes.

        Raises:
            KeyErasedError: the keys are left in the process that this one was forked from.
        """

    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, memo: object, /) -> NoReturn: ...
    def __reduce_ex__(self, protocol: object, /) -> NoReturn: ...

def seal_boxes(
    group: GroupKeys,
    one_time_keys: Sequence[Buffer],
    *,
    whole: bool,
    as_of_ms: int,
    epochs: Sequence[tuple[int, KeyPair, XWingKeyPair | None, int, int]],
) -> list[bytes | None]:
    """Seal the private keys of epochs to each member's one-time key, off the GIL (HPKE in PSK mode, RFC 9180).

    Args:
        group: the keys of the group.
        one_time_keys: one raw public key for each member. To one of 32 bytes the box is sealed with X25519, and holds
            no X-Wing pairs: who undoes X25519 later would have them. To one of 1,216 bytes it is sealed with X-Wing.
        whole: whether these are all epochs of the group that live.
        as_of_ms: the time of the store from which the durations below count, in milliseconds, from 0 to 2**64 - 1.
        epochs: from 1 to 8 tuples of a number (0 to 2**64 - 1), a key pair, an X-Wing pair or None, the milliseconds
            until they are published (-2**63 to 2**63 - 1; negative: they are published), and the milliseconds until
            they end (0 to 2**64 - 1).

    Returns:
        One box for each one-time key, in their order; None for a key that nothing can be sealed to: it has another
        length, is or has a point of small order, or has an ML-KEM half that is none.

    Raises:
        EntropyError: the random source failed.
        KeyErasedError: a private key is erased, or this process was forked from the one that has the keys.
        MemoryError: the system has no memory for the boxes.
        OverflowError: a number is out of its range.
        ValueError: there are no epochs, or more than 8.
    """

def open_box(
    group: GroupKeys, one_time_key: KeyPair | XWingKeyPair, box: Buffer
) -> tuple[bool, int, list[tuple[int, KeyPair, XWingKeyPair | None, int, int]]]:
    """Open a box that a member of the group sealed to a one-time key, off the GIL.

    Erase the one-time key then, whether the box opened or not: as long as it exists, it opens the box again.

    Args:
        group: the keys of the group.
        one_time_key: the key pair that the box is sealed to.
        box: what `seal_boxes` made, at most 16 KiB. Keys of kinds that this version does not know are passed over.

    Returns:
        `whole`, `as_of_ms` and `epochs`, as the member passed them to `seal_boxes`; without X-Wing pairs, if the
        one-time key is a `KeyPair`.

    Raises:
        KeyErasedError: the one-time key is erased, or this process was forked from the one that has the keys.
        MalformedMessageError: anything else is wrong.
        MemoryError: the system has no memory for the private keys.
    """

@final
class SigningKey:
    """An Ed25519 key (RFC 8032): the identity by which clients know a server. Its seed stays in native memory.

    The seed is locked in memory, left out of core dumps, wiped in a forked child, by `erase()` and when the last
    reference goes. Nothing in Python can read, copy or pickle it.
    """

    def __new__(cls, *_arguments: object, **_keywords: object) -> Self:
        """Raise TypeError: `from_file` and `new_file` make signing keys."""

    @staticmethod
    def from_file(path: str | os.PathLike[str]) -> SigningKey:
        """Read a key from a file, off the GIL. The content never becomes a Python object.

        Args:
            path: a regular file, or a link to one, with a private key in PKCS#8 form (RFC 8410) as PEM, at most 4096
                bytes. Nobody but its owner may be able to write it, and not every user to read it.

        Raises:
            IdentityFileError: the file cannot be read, others have too much access to it, or its content is something
                else. The message names the file.
            MemoryError: the system has no memory for the key.
        """

    @staticmethod
    def new_file(path: str | os.PathLike[str]) -> SigningKey:
        """Make a key from the system's random source and write it to a new file, off the GIL.

        Its owner alone can read the file. Nothing that is there already is overwritten.

        Raises:
            EntropyError: the random source failed.
            IdentityFileError: the file exists, or cannot be written. Then there is no new file.
            MemoryError: the system has no memory for the key.
        """

    @property
    def public_key(self) -> bytes:
        """The public key: 32 bytes, as RFC 8032 encodes it. It stays readable after `erase()`."""

    @property
    def erased(self) -> bool:
        """Whether the seed is gone: erased, or left in the process that this one was forked from."""

    def sign(self, message: Buffer) -> bytes:
        """Return the signature of a message, off the GIL: 64 bytes. The same message has the same signature.

        Raises:
            KeyErasedError: the seed is gone.
        """

    def erase(self) -> None:
        """Wait for signatures that have begun, then wipe the seed. Erasing twice is fine."""

    def __copy__(self) -> NoReturn: ...
    def __deepcopy__(self, memo: object, /) -> NoReturn: ...
    def __reduce_ex__(self, protocol: object, /) -> NoReturn: ...

def is_signature(public_key: Buffer, message: Buffer, signature: Buffer) -> bool:
    """Return whether a signature is one of the owner of a public key over a message, off the GIL (Ed25519, strict).

    A public key or a signature whose point is of small order counts for nothing, nor does another encoding of a good
    signature, or bytes of another length.

    Args:
        public_key: 32 bytes.
        message: any bytes.
        signature: 64 bytes.
    """

def is_signing_public_key(public_key: Buffer) -> bool:
    """Return whether these are 32 bytes that stand for a point of the curve which is not of small order."""

def encode_base64url(data: Buffer) -> str:
    """Return the text that stands for bytes, in base64url without padding (RFC 4648, section 5)."""

def decode_base64url(text: str) -> bytes:
    """Return the bytes that a text stands for, in base64url without padding.

    Each sequence of bytes has one text. Another one is refused, even if a lenient decoder would read the same bytes:
    two forms of a message would be two to a memory of requests.

    Raises:
        ValueError: it is no such text. The message quotes nothing of it.
    """
