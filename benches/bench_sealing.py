"""Sealing pieces of an answer, and opening requests, from a token to a mebibyte: what each costs a server."""

import itertools
from collections.abc import Callable
from typing import Final

import nacl.bindings
import nacl.public
import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benches.comparison import Comparison, Panel, Target
from benches.measure import Measure
from benches.peers import CRYPTOGRAPHY, PYNACL, SERVER_KEYS, faster_than
from benches.units import format_bytes, format_seconds
from server_keys import KeyPair
from server_keys._native import RequestOpener, RequestSealer

KIB: Final = 1024
MIB: Final = 1024 * KIB
INFO: Final = b"ehbp request"
CONTESTANTS: Final = (SERVER_KEYS.name, CRYPTOGRAPHY.name, PYNACL.name)
# How many times as fast as `cryptography` each is to be, by the length of the text in bytes.
SEALING_TARGETS: Final = {40: 3.0, 64 * KIB: 1.1, MIB: 1.0}
OPENING_TARGETS: Final = {KIB: 1.5, 64 * KIB: 1.5, MIB: 1.1}

_TOKEN_TIME: Final = Target(
    "Sealing 40 bytes from Python: at most 0.4 µs",
    lambda measured: measured.time(SERVER_KEYS.name),
    at_most=0.4e-6,
    format_value=format_seconds,
)


def _sealing(length: int, at_least: float) -> Comparison:
    what = f"Sealing {format_bytes(length)}"
    return Comparison(
        title=what,
        description=(
            "A piece of a streamed answer with AES-256-GCM: as a whole EHBP frame, and by the peers as a bare "
            "ciphertext under a nonce that Python counts."
        ),
        reference=CRYPTOGRAPHY.name,
        speedup_title="speed against cryptography",
        targets=(faster_than(CRYPTOGRAPHY, what, at_least), *((_TOKEN_TIME,) if length == 40 else ())),
        panel=Panel(what, "AES-256-GCM", CONTESTANTS),
    )


def _opening(length: int, at_least: float) -> Comparison:
    what = f"Opening a request of {format_bytes(length)}"
    return Comparison(
        title=what,
        description=(
            "HPKE (X25519, HKDF-SHA256, AES-256-GCM), from the encapsulated key and the ciphertext to the plaintext. "
            "PyNaCl has no HPKE: its `SealedBox` (X25519, XSalsa20, Poly1305) does the same job."
        ),
        reference=CRYPTOGRAPHY.name,
        speedup_title="speed against cryptography",
        targets=(faster_than(CRYPTOGRAPHY, what, at_least),),
        panel=Panel(what, "HPKE; PyNaCl: SealedBox", CONTESTANTS),
    )


SEALING: Final = {length: _sealing(length, at_least) for length, at_least in SEALING_TARGETS.items()}
OPENING: Final = {length: _opening(length, at_least) for length, at_least in OPENING_TARGETS.items()}
COMPARISONS: Final = (*SEALING.values(), *OPENING.values())


def _frame_sealer(text: bytes) -> Callable[[], object]:
    server = KeyPair.generate()
    client = RequestSealer(server.public_key)
    opener = RequestOpener(client.encapsulated_key, [server])
    opener.feed(client.seal(b"hello"))
    seal = opener.response_sealer().seal
    return lambda: seal(text)


def _counting_aesgcm(text: bytes) -> Callable[[], object]:
    aead = AESGCM(bytes(32))
    numbers = itertools.count()
    return lambda: aead.encrypt(next(numbers).to_bytes(12), text, None)


def _counting_sodium(text: bytes) -> Callable[[], object]:
    key = bytes(32)
    numbers = itertools.count()
    encrypt = nacl.bindings.crypto_aead_aes256gcm_encrypt
    return lambda: encrypt(text, None, next(numbers).to_bytes(12), key)


@pytest.mark.parametrize("length", list(SEALING))
@pytest.mark.parametrize(
    ("contestant", "prepare"),
    [
        (SERVER_KEYS.name, _frame_sealer),
        (CRYPTOGRAPHY.name, _counting_aesgcm),
        (PYNACL.name, _counting_sodium),
    ],
)
def bench_sealing(
    measure: Measure, length: int, contestant: str, prepare: Callable[[bytes], Callable[[], object]]
) -> None:
    measure(SEALING[length], contestant, prepare(bytes(length)))


def _request_opening(text: bytes) -> Callable[[], bytes]:
    server = KeyPair.generate()
    client = RequestSealer(server.public_key)
    encapsulated_key, body = client.encapsulated_key, client.seal(text)
    return lambda: RequestOpener(encapsulated_key, [server]).feed(body)


def _single_shot_opening(text: bytes) -> Callable[[], bytes]:
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    private_key = X25519PrivateKey.generate()
    ciphertext = suite.encrypt(text, private_key.public_key(), INFO)
    return lambda: suite.decrypt(ciphertext, private_key, INFO)


def _sealed_box_opening(text: bytes) -> Callable[[], bytes]:
    private_key = nacl.public.PrivateKey.generate()
    ciphertext = nacl.public.SealedBox(private_key.public_key).encrypt(text)
    box = nacl.public.SealedBox(private_key)
    return lambda: box.decrypt(ciphertext)


@pytest.mark.parametrize("length", list(OPENING))
@pytest.mark.parametrize(
    ("contestant", "prepare"),
    [
        (SERVER_KEYS.name, _request_opening),
        (CRYPTOGRAPHY.name, _single_shot_opening),
        (PYNACL.name, _sealed_box_opening),
    ],
)
def bench_opening(
    measure: Measure, length: int, contestant: str, prepare: Callable[[bytes], Callable[[], bytes]]
) -> None:
    open_request = prepare(bytes(length))
    assert open_request() == bytes(length)
    measure(OPENING[length], contestant, open_request)
