"""The keys of a sealed request and of its response, derived as the RFCs say, without the native module."""

import hashlib
import hmac
import os
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEM_SUITE = b"KEM" + bytes.fromhex("0020")
SUITE = b"HPKE" + bytes.fromhex("0020 0001 0002")


@dataclass(frozen=True)
class RequestKeys:
    """The secrets of one request, as its client knows them (RFC 9180, base mode)."""

    encapsulated_key: bytes
    agreed: bytes
    shared_secret: bytes
    key: bytes
    base_nonce: bytes
    exporter_secret: bytes
    exported: bytes

    @classmethod
    def drawn_for(cls, public_key: bytes) -> "RequestKeys":
        """Draw an ephemeral key pair and agree on keys with the owner of `public_key`."""
        return cls.agreed_by(os.urandom(32), public_key)

    @classmethod
    def agreed_by(cls, ephemeral_private_key: bytes, public_key: bytes) -> "RequestKeys":
        """Agree on keys with the owner of `public_key` by an ephemeral private key."""
        private_key = X25519PrivateKey.from_private_bytes(ephemeral_private_key)
        encapsulated_key = private_key.public_key().public_bytes_raw()
        agreed = private_key.exchange(X25519PublicKey.from_public_bytes(public_key))
        extracted = labeled_extract(KEM_SUITE, b"", b"eae_prk", agreed)
        shared_secret = labeled_expand(KEM_SUITE, extracted, b"shared_secret", encapsulated_key + public_key, 32)
        context = b"\0" + labeled_extract(SUITE, b"", b"psk_id_hash", b"")
        context += labeled_extract(SUITE, b"", b"info_hash", b"ehbp request")
        secret = labeled_extract(SUITE, shared_secret, b"secret", b"")
        exporter_secret = labeled_expand(SUITE, secret, b"exp", context, 32)
        return cls(
            encapsulated_key,
            agreed,
            shared_secret,
            key=labeled_expand(SUITE, secret, b"key", context, 32),
            base_nonce=labeled_expand(SUITE, secret, b"base_nonce", context, 12),
            exporter_secret=exporter_secret,
            exported=labeled_expand(SUITE, exporter_secret, b"sec", b"ehbp response", 32),
        )

    def frame(self, number: int, plaintext: bytes) -> bytes:
        """Seal the frame with this number, from 0."""
        sealed = AESGCM(self.key).encrypt(_nonce(self.base_nonce, number), plaintext, b"")
        return len(sealed).to_bytes(4, "big") + sealed

    def response_key(self, response_nonce: bytes) -> bytes:
        """Return the key of the response."""
        return _expand(self._extracted(response_nonce), b"key", 32)

    def opened(self, response_nonce: bytes, body: bytes) -> bytes:
        """Open the whole frames of a response's body."""
        base_nonce = _expand(self._extracted(response_nonce), b"nonce", 12)
        cipher = AESGCM(self.response_key(response_nonce))
        plaintext, number = b"", 0
        while len(body) >= 4 + (length := int.from_bytes(body[:4], "big")):
            plaintext += cipher.decrypt(_nonce(base_nonce, number), body[4 : 4 + length], b"")
            body, number = body[4 + length :], number + 1
        return plaintext

    @property
    def secrets(self) -> set[bytes]:
        """The keys, and the secrets that they are derived from, of 32 bytes each."""
        return {self.agreed, self.shared_secret, self.key, self.exporter_secret, self.exported}

    def _extracted(self, response_nonce: bytes) -> bytes:
        return hmac.digest(self.encapsulated_key + response_nonce, self.exported, hashlib.sha256)


def _nonce(base_nonce: bytes, number: int) -> bytes:
    return (int.from_bytes(base_nonce, "big") ^ number).to_bytes(12, "big")


def labeled_extract(suite: bytes, salt: bytes, label: bytes, key_material: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + key_material, hashlib.sha256)


def labeled_expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return _expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


def _expand(key: bytes, info: bytes, length: int) -> bytes:
    # One block of HKDF-SHA256 is enough: no more than 32 bytes are asked for.
    return hmac.digest(key, info + b"\1", hashlib.sha256)[:length]
