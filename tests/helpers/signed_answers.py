"""Signed key answers by other code than that under test: the bytes by hand, Ed25519 by `cryptography`.

`python -m tests.helpers.signed_answers` writes the vectors anew.
"""

import base64
import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

VECTORS = Path(__file__).parents[1] / "vectors"
ORDER = 2**252 + 27742317777372353535851937790883648493
"""The order of the group in which Ed25519 computes."""
_X25519_ALONE = bytes.fromhex("00 0020") + bytes(range(32)) + bytes.fromhex("0004 0001 0002")


@dataclass(frozen=True)
class OtherSigner:
    """An identity that another library holds."""

    seed: bytes

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    @property
    def public_key(self) -> bytes:
        return self._key.public_key().public_bytes_raw()

    @property
    def identity(self) -> str:
        return "ed25519:" + base64.urlsafe_b64encode(self.public_key).decode().rstrip("=")

    @property
    def pem(self) -> bytes:
        """What OpenSSL would write into a file."""
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write_to(self, path: Path) -> Path:
        """Write the file of a server that has this identity."""
        path.write_bytes(self.pem)
        path.chmod(0o600)
        return path

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def entry(self, answer: bytes, created: int, expires: int, *, algorithm: int = 1) -> bytes:
        """The signature entry of an answer, with its length."""
        times = struct.pack(">QQ", created, expires)
        signature = self.sign(b"server-keys key configuration v1\0" + times + answer)
        entry = b"\0\0\0" + bytes([algorithm]) + hashlib.sha256(self.public_key).digest()[:8] + times + signature
        return struct.pack(">H", len(entry)) + entry

    def signed(self, answer: bytes, created: int, expires: int) -> bytes:
        return answer + self.entry(answer, created, expires)


def key_answer(*entries: bytes) -> bytes:
    """A key answer of an X25519 key and other entries, not signed."""
    return _X25519_ALONE + b"".join(struct.pack(">H", len(entry)) + entry for entry in entries)


XWING_ENTRY = bytes([7]) + bytes.fromhex("647a") + bytes(index % 251 for index in range(1216)) + _X25519_ALONE[-6:]

# RFC 8032, section 7.1: seed, message.
_RFC_8032 = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", ""),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "72"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "af82"),
]


def _signature(seed: str, message: str) -> dict[str, str]:
    signer = OtherSigner(bytes.fromhex(seed))
    return {
        "seed": seed,
        "public_key": signer.public_key.hex(),
        "message": message,
        "signature": signer.sign(bytes.fromhex(message)).hex(),
    }


def _answer(case: str, seed: bytes, answer: bytes, created: int, expires: int) -> dict[str, Any]:
    signer = OtherSigner(seed)
    return {
        "case": case,
        "seed": seed.hex(),
        "identity": signer.identity,
        "answer": answer.hex(),
        "created": created,
        "expires": expires,
        "signed_answer": signer.signed(answer, created, expires).hex(),
    }


def _refused() -> list[dict[str, str]]:
    """Signatures that a lenient check takes."""
    honest = _signature(*_RFC_8032[1])
    signature = bytes.fromhex(honest["signature"])
    larger = (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
    neutral = (1).to_bytes(32, "little")
    return [
        {"case": "s is not reduced", **honest, "signature": (signature[:32] + larger).hex()},
        {
            "case": "the public key is of small order, so one signature fits all messages",
            "public_key": neutral.hex(),
            "message": "72",
            "signature": (neutral + bytes(32)).hex(),
        },
    ]


def identity_vectors() -> dict[str, Any]:
    """What `tests/vectors/identity.json` holds."""
    seed, other = bytes(range(32)), bytes(range(100, 132))
    return {
        "source": "tests/helpers/signed_answers.py, by cryptography; the signatures are those of RFC 8032, section 7.1",
        "signatures": [_signature(*vector) for vector in _RFC_8032],
        "refused": _refused(),
        "answers": [
            _answer("X25519 alone", seed, key_answer(), 1_790_000_000, 1_790_000_600),
            _answer("with an X-Wing key", seed, key_answer(XWING_ENTRY), 1_790_000_000, 1_790_000_600),
            _answer("with an entry of tomorrow", other, key_answer(XWING_ENTRY, b"\x09tomorrow"), 0, 2**64 - 1),
        ],
    }


if __name__ == "__main__":
    (VECTORS / "identity.json").write_text(json.dumps(identity_vectors(), indent=2) + "\n")
