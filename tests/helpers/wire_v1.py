"""Messages of the wire's version 1, made without the native module: X-Wing and HPKE by the primitives of cryptography.

Run as a program, it writes the known answers that the tests in Python and in Rust read.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.helpers.message_keys import labeled_expand, labeled_extract

VECTORS = Path(__file__).parents[1] / "vectors"
REQUEST_INFO = b"server-keys request v1"
XWING_SUITE = b"HPKE" + bytes.fromhex("647a 0001 0002")
ML_KEM_PUBLIC_KEY_BYTES, ML_KEM_CIPHERTEXT_BYTES = 1184, 1088
END_BYTES = 20


class XWingSecret:
    """The private keys of a seed (draft-connolly-cfrg-xwing-kem, section 5.2), in the open."""

    def __init__(self, seed: bytes) -> None:
        self.seed = seed
        self.expanded = hashlib.shake_256(seed).digest(96)
        self._ml_kem = MLKEM768PrivateKey.from_seed_bytes(self.expanded[:64])
        self._x25519 = X25519PrivateKey.from_private_bytes(self.expanded[64:])
        self.x25519_public_key = self._x25519.public_key().public_bytes_raw()
        self.public_key = self._ml_kem.public_key().public_bytes_raw() + self.x25519_public_key

    def halves(self, encapsulated_key: bytes) -> tuple[bytes, bytes]:
        """The secrets that the two halves of an encapsulated key bring, ML-KEM's and X25519's."""
        ciphertext, ephemeral = encapsulated_key[:ML_KEM_CIPHERTEXT_BYTES], encapsulated_key[ML_KEM_CIPHERTEXT_BYTES:]
        agreed = self._x25519.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        return self._ml_kem.decapsulate(ciphertext), agreed

    def decapsulated(self, encapsulated_key: bytes) -> bytes:
        """The secret that an encapsulated key brings."""
        ephemeral = encapsulated_key[ML_KEM_CIPHERTEXT_BYTES:]
        return _combined(*self.halves(encapsulated_key), ephemeral, self.x25519_public_key)


def encapsulated_to(public_key: bytes) -> tuple[bytes, bytes]:
    """Draw a secret. Return it, and the encapsulated key that brings it to the owner of a public key."""
    ml_kem_public_key, x25519_public_key = public_key[:ML_KEM_PUBLIC_KEY_BYTES], public_key[ML_KEM_PUBLIC_KEY_BYTES:]
    ml_kem_secret, ciphertext = MLKEM768PublicKey.from_public_bytes(ml_kem_public_key).encapsulate()
    private_key = X25519PrivateKey.generate()
    ephemeral = private_key.public_key().public_bytes_raw()
    agreed = private_key.exchange(X25519PublicKey.from_public_bytes(x25519_public_key))
    return _combined(ml_kem_secret, agreed, ephemeral, x25519_public_key), ciphertext + ephemeral


def _combined(ml_kem_secret: bytes, agreed: bytes, ephemeral: bytes, x25519_public_key: bytes) -> bytes:
    label = bytes.fromhex("5c2e2f2f5e5c")
    return hashlib.sha3_256(ml_kem_secret + agreed + ephemeral + x25519_public_key + label).digest()


@dataclass(frozen=True)
class Cipher:
    """AES-256-GCM whose nonce counts."""

    key: bytes
    base_nonce: bytes

    def seal(self, number: int, plaintext: bytes) -> bytes:
        """Seal what has this number: the head has 0, and the frames begin at 1."""
        return AESGCM(self.key).encrypt(self._nonce(number), plaintext, b"")

    def open(self, number: int, ciphertext: bytes) -> bytes:
        return AESGCM(self.key).decrypt(self._nonce(number), ciphertext, b"")

    def frame(self, number: int, plaintext: bytes) -> bytes:
        """Seal a frame."""
        sealed = self.seal(number, plaintext)
        return len(sealed).to_bytes(4, "big") + sealed

    def body(self, pieces: Sequence[bytes]) -> bytes:
        """Seal a body, one frame for each piece, and its end."""
        return b"".join(self.frame(number, piece) for number, piece in enumerate([*pieces, b""], start=1))

    def opened(self, body: bytes) -> list[bytes]:
        """Open the frames of a body, with that of its end."""
        pieces: list[bytes] = []
        while body:
            length = int.from_bytes(body[:4], "big")
            pieces.append(self.open(len(pieces) + 1, body[4 : 4 + length]))
            body = body[4 + length :]
        return pieces

    def _nonce(self, number: int) -> bytes:
        return (int.from_bytes(self.base_nonce, "big") ^ number).to_bytes(12, "big")


@dataclass(frozen=True)
class HpkeContext:
    """What both sides of a message derive from X-Wing's secret (RFC 9180, section 5.1)."""

    shared_secret: bytes
    scheduled: bytes
    """The secret that the others are derived from."""
    cipher: Cipher
    exporter_secret: bytes

    @classmethod
    def of(cls, shared_secret: bytes, info: bytes, psk: bytes = b"", psk_id: bytes = b"") -> "HpkeContext":
        """Derive in base mode, or with a pre-shared key in PSK mode."""
        context = bytes([bool(psk)]) + labeled_extract(XWING_SUITE, b"", b"psk_id_hash", psk_id)
        context += labeled_extract(XWING_SUITE, b"", b"info_hash", info)
        secret = labeled_extract(XWING_SUITE, shared_secret, b"secret", psk)
        key = labeled_expand(XWING_SUITE, secret, b"key", context, 32)
        base_nonce = labeled_expand(XWING_SUITE, secret, b"base_nonce", context, 12)
        exporter_secret = labeled_expand(XWING_SUITE, secret, b"exp", context, 32)
        return cls(shared_secret, secret, Cipher(key, base_nonce), exporter_secret)

    def export(self, label: bytes, length: int) -> bytes:
        return labeled_expand(XWING_SUITE, self.exporter_secret, b"sec", label, length)


@dataclass(frozen=True)
class Request:
    """The secrets of one request, and of its response."""

    encapsulated_key: bytes
    hpke: HpkeContext

    @classmethod
    def drawn_for(cls, public_key: bytes) -> "Request":
        """Agree on secrets with the owner of a public key, as its client."""
        shared_secret, encapsulated_key = encapsulated_to(public_key)
        return cls(encapsulated_key, HpkeContext.of(shared_secret, REQUEST_INFO))

    @classmethod
    def received(cls, encapsulated_key: bytes, secret: XWingSecret) -> "Request":
        """Agree on secrets as the server."""
        return cls(encapsulated_key, HpkeContext.of(secret.decapsulated(encapsulated_key), REQUEST_INFO))

    @property
    def cipher(self) -> Cipher:
        return self.hpke.cipher

    @property
    def replay_id(self) -> bytes:
        return self.hpke.export(b"server-keys replay v1", 8)

    @property
    def exported(self) -> bytes:
        """What the keys of the response are derived from."""
        return self.hpke.export(b"server-keys response v1", 32)

    def response_cipher(self, response_nonce: bytes) -> Cipher:
        extracted = hmac.digest(self.encapsulated_key + response_nonce, self.exported, hashlib.sha256)
        key, base_nonce = (hmac.digest(extracted, use + b"\1", hashlib.sha256) for use in (b"key", b"nonce"))
        return Cipher(key, base_nonce[:12])

    @property
    def secrets(self) -> set[bytes]:
        """The keys, and the secrets that they are derived from, of 32 bytes each."""
        hpke = self.hpke
        return {hpke.shared_secret, hpke.scheduled, hpke.cipher.key, hpke.exporter_secret, self.exported}


def xwing_vectors() -> list[dict[str, bytes]]:
    """The draft's own known answers."""
    read = json.loads((VECTORS / "xwing.json").read_text())["vectors"]
    return [{name: bytes.fromhex(value) for name, value in vector.items()} for vector in read]


def read_messages(file: str) -> list[dict[str, Any]]:
    """Read known answers: bytes, and lists of them."""
    read = json.loads((VECTORS / file).read_text())["messages"]
    return [
        {
            name: [bytes.fromhex(piece) for piece in value] if isinstance(value, list) else bytes.fromhex(value)
            for name, value in message.items()
        }
        for message in read
    ]


def wire_vectors() -> dict[str, object]:
    """Known answers for requests and responses. Their keys and encapsulated keys are the draft's."""
    contents: list[tuple[bytes, list[bytes], bytes, list[bytes]]] = [
        (b"POST /v1/chat/completions?a=b", [b"{", b"}" * 100], b"200", [b"data: 1\n\n", b"\0", b"data: [DONE]\n\n"]),
        (b"GET /v1/models end", [], b"304 end", []),
        (b"", [bytes(range(256)) * 3], b"500", [b"x" * 2_000]),
    ]
    return {
        "source": "tests/helpers/wire_v1.py, by cryptography; seeds and encapsulated keys are those of xwing.json",
        "messages": [
            _message(vector, number, *content)
            for number, (vector, content) in enumerate(zip(xwing_vectors(), contents, strict=True))
        ],
    }


def _message(
    vector: dict[str, bytes],
    number: int,
    head: bytes,
    pieces: list[bytes],
    response_head: bytes,
    response_pieces: list[bytes],
) -> dict[str, object]:
    secret = XWingSecret(vector["seed"])
    request = Request.received(vector["ct"], secret)
    response_nonce = hashlib.shake_256(b"nonce %d" % number).digest(32)
    response = request.response_cipher(response_nonce)
    return {
        "seed": secret.seed.hex(),
        "public_key": secret.public_key.hex(),
        "encapsulated_key": request.encapsulated_key.hex(),
        "head": head.hex(),
        "sealed_head": request.cipher.seal(0, head).hex(),
        "replay_id": request.replay_id.hex(),
        "pieces": [piece.hex() for piece in pieces],
        "body": request.cipher.body(pieces).hex(),
        "exported": request.exported.hex(),
        "response_nonce": response_nonce.hex(),
        "response_head": response_head.hex(),
        "sealed_response_head": response.seal(0, response_head).hex(),
        "response_pieces": [piece.hex() for piece in response_pieces],
        "response_body": response.body(response_pieces).hex(),
    }


def random_secret() -> XWingSecret:
    return XWingSecret(os.urandom(32))


if __name__ == "__main__":
    (VECTORS / "wire_v1.json").write_text(json.dumps(wire_vectors(), indent=2) + "\n")
