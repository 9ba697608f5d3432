"""Groups and their boxes, made without the native module: keys by cryptography, boxes by pyhpke and cryptography.

Run as a program, it writes the known answers that the tests in Python and in Rust read.
"""

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKey, KEMKeyPair

from tests.helpers.message_keys import KEM_SUITE, SUITE, labeled_expand, labeled_extract
from tests.helpers.wire_v1 import HpkeContext, XWingSecret, encapsulated_to, xwing_vectors

VECTORS = Path(__file__).parents[1] / "vectors"
X25519 = 0x0020
POST_QUANTUM = 0x647A

_HPKE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.AES256_GCM)


@dataclass(frozen=True)
class GroupSecrets:
    """What the members of a group derive, in the open."""

    group_id: bytes
    ask_key: bytes
    register_key: bytes
    pre_shared_key: bytes

    @classmethod
    def of_name(cls, name: bytes) -> "GroupSecrets":
        return cls._derived(name, b"server-keys group id of name v1", b"")

    @classmethod
    def of_secret(cls, secret: bytes, label: bytes) -> "GroupSecrets":
        return cls._derived(secret, b"server-keys group id of secret v1", label)

    @classmethod
    def _derived(cls, secret: bytes, kind: bytes, label: bytes) -> "GroupSecrets":
        group_id = HKDF(SHA256(), 16, kind, label).derive(secret)
        keys = [
            HKDF(SHA256(), 32, group_id, f"server-keys {use} key v1".encode()).derive(secret)
            for use in ("ask", "register", "box")
        ]
        return cls(group_id, *keys)

    def ask_tag(self, ask: bytes) -> bytes:
        return _hmac(self.ask_key, ask)

    def register_tag(self, register: bytes) -> bytes:
        return _hmac(self.register_key, register)

    def seal(self, one_time_key: bytes, plaintext: bytes, ephemeral: X25519PrivateKey | None = None) -> bytes:
        """Seal a box to a raw public key, with a random ephemeral key unless one is given."""
        encapsulated_key, context = _HPKE.create_sender_context(
            KEMKey.from_pyca_cryptography_key(X25519PublicKey.from_public_bytes(one_time_key)),
            info=self._info(one_time_key),
            psk=self.pre_shared_key,
            psk_id=self.group_id,
            eks=_pair(ephemeral or X25519PrivateKey.generate()),
        )
        return encapsulated_key + context.seal(plaintext, aad=b"")

    def open(self, one_time_key: X25519PrivateKey, box: bytes) -> bytes:
        """Open a box; pyhpke.OpenError if it is not authentic."""
        context = _HPKE.create_recipient_context(
            box[:32],
            KEMKey.from_pyca_cryptography_key(one_time_key),
            info=self._info(one_time_key.public_key().public_bytes_raw()),
            psk=self.pre_shared_key,
            psk_id=self.group_id,
        )
        return context.open(box[32:], aad=b"")

    def secrets_of_box(self, one_time_key: X25519PrivateKey, box: bytes) -> set[bytes]:
        """The key of a box, and the secrets that it is derived from, of 32 bytes each (RFC 9180, section 5.1)."""
        public_key, encapsulated_key = one_time_key.public_key().public_bytes_raw(), box[:32]
        agreed = one_time_key.exchange(X25519PublicKey.from_public_bytes(encapsulated_key))
        extracted = labeled_extract(KEM_SUITE, b"", b"eae_prk", agreed)
        shared_secret = labeled_expand(KEM_SUITE, extracted, b"shared_secret", encapsulated_key + public_key, 32)
        context = b"\1" + labeled_extract(SUITE, b"", b"psk_id_hash", self.group_id)
        context += labeled_extract(SUITE, b"", b"info_hash", self._info(public_key))
        secret = labeled_extract(SUITE, shared_secret, b"secret", self.pre_shared_key)
        key = labeled_expand(SUITE, secret, b"key", context, 32)
        nonce = labeled_expand(SUITE, secret, b"base_nonce", context, 12)
        AESGCM(key).decrypt(nonce, box[32:], b"")  # raises unless these are the box's own
        return {agreed, extracted, shared_secret, secret, key}

    def seal_xwing(self, one_time_key: bytes, plaintext: bytes) -> bytes:
        """Seal a box to an X-Wing public key."""
        shared_secret, encapsulated_key = encapsulated_to(one_time_key)
        return encapsulated_key + self.xwing_context(one_time_key, shared_secret).cipher.seal(0, plaintext)

    def open_xwing(self, one_time_key: XWingSecret, box: bytes) -> bytes:
        """Open a box that is sealed with X-Wing; cryptography's InvalidTag if it is not authentic."""
        shared_secret = one_time_key.decapsulated(box[:1120])
        return self.xwing_context(one_time_key.public_key, shared_secret).cipher.open(0, box[1120:])

    def xwing_context(self, one_time_key: bytes, shared_secret: bytes) -> HpkeContext:
        info = b"server-keys x-wing box v1" + self.group_id + one_time_key
        return HpkeContext.of(shared_secret, info, self.pre_shared_key, self.group_id)

    def _info(self, one_time_key: bytes) -> bytes:
        return b"server-keys box v1" + self.group_id + one_time_key


@dataclass(frozen=True)
class Epoch:
    """One epoch of a box."""

    number: int
    publish_in_ms: int
    ends_in_ms: int
    keys: Sequence[tuple[int, bytes]]
    """The kind of each private key, and its bytes."""


def contents(epochs: Sequence[Epoch], *, whole: int = 1, as_of_ms: int = 0, version: int = 1) -> bytes:
    """Write what a box holds."""
    written = struct.pack(">BBQB", version, whole, as_of_ms, len(epochs))
    for epoch in epochs:
        written += struct.pack(">QqQB", epoch.number, epoch.publish_in_ms, epoch.ends_in_ms, len(epoch.keys))
        for kind, key in epoch.keys:
            written += struct.pack(">HH", kind, len(key)) + key
    return written


def _hmac(key: bytes, message: bytes) -> bytes:
    mac = HMAC(key, SHA256())
    mac.update(message)
    return mac.finalize()


def _pair(private_key: X25519PrivateKey) -> KEMKeyPair:
    keys = (private_key, private_key.public_key())
    return KEMKeyPair(*map(KEMKey.from_pyca_cryptography_key, keys))


def _bytes(name: str, length: int = 32) -> bytes:
    """Bytes that look random and are always the same."""
    return hashlib.shake_256(name.encode()).digest(length)


def group_vectors() -> dict[str, object]:
    """Known answers for the keys of groups."""
    ask, register = b"an ask", b"a register"
    secrets = [(_bytes("a"), b""), (_bytes("a"), b"label"), (_bytes("b", 64), b"label"), (bytes(33), b"\0")]
    groups = [
        *(({"secret": s.hex(), "label": label.hex()}, GroupSecrets.of_secret(s, label)) for s, label in secrets),
        *(({"name": name.hex()}, GroupSecrets.of_name(name)) for name in (b"a name", _bytes("a"))),
    ]
    return {
        "source": "tests/helpers/group_boxes.py, by cryptography",
        "ask": ask.hex(),
        "register": register.hex(),
        "groups": [
            {
                **given,
                "group_id": group.group_id.hex(),
                "ask_tag": group.ask_tag(ask).hex(),
                "register_tag": group.register_tag(register).hex(),
            }
            for given, group in groups
        ],
    }


def box_vectors() -> dict[str, object]:
    """Known answers for boxes."""
    secret, label = _bytes("secret"), b"label"
    group = GroupSecrets.of_secret(secret, label)
    largest = 2**64 - 1
    plain = Epoch(1, 250, 60_000, [(X25519, _bytes("key 1"))])
    least = Epoch(0, -(2**63), 0, [(X25519, _bytes("key 2"))])
    most = Epoch(largest, 2**63 - 1, largest, [(X25519, _bytes("key 3"))])
    later = Epoch(4, -5, 7, [(POST_QUANTUM, _bytes("seed", 64)), (X25519, _bytes("key 4")), (0xFFFF, b"")])
    return {
        "source": "tests/helpers/group_boxes.py, by pyhpke and cryptography",
        "secret": secret.hex(),
        "label": label.hex(),
        "boxes": [
            _box_vector(group, "one epoch", [plain], whole=True, as_of_ms=1_764_000_000_000),
            _box_vector(group, "the least and the largest numbers", [least, most], whole=False, as_of_ms=largest),
            _box_vector(group, "kinds of keys that come later", [later, plain], whole=True, as_of_ms=0),
        ],
    }


def xwing_box_vectors() -> dict[str, object]:
    """Known answers for boxes that are sealed with X-Wing. Their one-time and encapsulated keys are the draft's."""
    secret, label = _bytes("secret"), b"label"
    group = GroupSecrets.of_secret(secret, label)
    both = Epoch(1, 250, 60_000, [(X25519, _bytes("key 1")), (POST_QUANTUM, _bytes("seed 1"))])
    one = Epoch(2, -1, 0, [(X25519, _bytes("key 2"))])
    later = Epoch(3, 0, 1, [(0xFFFF, b"later"), (POST_QUANTUM, _bytes("seed 3")), (X25519, _bytes("key 3"))])
    cases: list[tuple[str, list[Epoch]]] = [
        ("both pairs", [both]),
        ("an epoch without an X-Wing pair", [one, both]),
        ("kinds of keys that come later", [later]),
    ]
    boxes = []
    for (case, epochs), vector in zip(cases, xwing_vectors(), strict=True):
        one_time_key = XWingSecret(vector["seed"])
        context = group.xwing_context(one_time_key.public_key, one_time_key.decapsulated(vector["ct"]))
        box = vector["ct"] + context.cipher.seal(0, contents(epochs, as_of_ms=5))
        known = [
            {
                "number": epoch.number,
                "private_key": dict(epoch.keys)[X25519].hex(),
                "seed": dict(epoch.keys).get(POST_QUANTUM, b"").hex(),
                "publish_in_ms": epoch.publish_in_ms,
                "ends_in_ms": epoch.ends_in_ms,
            }
            for epoch in epochs
        ]
        boxes.append({"case": case, "one_time_seed": one_time_key.seed.hex(), "box": box.hex(), "epochs": known})
    source = "tests/helpers/group_boxes.py, by cryptography; encapsulated keys are those of xwing.json"
    return {"source": source, "secret": secret.hex(), "label": label.hex(), "as_of_ms": 5, "boxes": boxes}


def _box_vector(
    group: GroupSecrets, case: str, epochs: Sequence[Epoch], *, whole: bool, as_of_ms: int
) -> dict[str, object]:
    plaintext = contents(epochs, whole=whole, as_of_ms=as_of_ms)
    one_time_key = X25519PrivateKey.from_private_bytes(_bytes(f"one-time key: {case}"))
    ephemeral = X25519PrivateKey.from_private_bytes(_bytes(f"ephemeral key: {case}"))
    return {
        "case": case,
        "one_time_private_key": one_time_key.private_bytes_raw().hex(),
        "contents": plaintext.hex(),
        "box": group.seal(one_time_key.public_key().public_bytes_raw(), plaintext, ephemeral).hex(),
        "whole": whole,
        "as_of_ms": as_of_ms,
        "epochs": [
            {
                "number": epoch.number,
                "private_key": dict(epoch.keys)[X25519].hex(),
                "publish_in_ms": epoch.publish_in_ms,
                "ends_in_ms": epoch.ends_in_ms,
            }
            for epoch in epochs
        ],
    }


if __name__ == "__main__":
    written = (("group.json", group_vectors()), ("box.json", box_vectors()), ("xwing_box.json", xwing_box_vectors()))
    for file, vectors in written:
        (VECTORS / file).write_text(json.dumps(vectors, indent=2) + "\n")
