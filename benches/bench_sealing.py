"""Sealing one token of a streaming answer, and opening a request: what each costs a server."""

import itertools
from collections.abc import Callable
from typing import Final

import pytest
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from benches.comparison import Comparison, Panel, Target
from benches.measure import Measure
from benches.peers import CRYPTOGRAPHY, SERVER_KEYS
from benches.units import format_seconds
from server_keys import KeyPair
from server_keys._native import RequestOpener, RequestSealer

TOKEN: Final = bytes(40)
REQUEST: Final = bytes(1024)
INFO: Final = b"ehbp request"

SEALING: Final = Comparison(
    title="Sealing a token",
    description=(
        f"{len(TOKEN)} bytes of a streaming answer with AES-256-GCM: as a whole EHBP frame, and as a bare ciphertext "
        "under a nonce that Python counts."
    ),
    reference=CRYPTOGRAPHY.name,
    speedup_title="speed against cryptography",
    targets=(
        Target(
            f"Sealing {len(TOKEN)} bytes from Python: at most 0.4 µs",
            lambda measured: measured.time(SERVER_KEYS.name),
            at_most=0.4e-6,
            format_value=format_seconds,
        ),
    ),
    panel=Panel("Sealing a token", f"{len(TOKEN)} bytes, AES-256-GCM", (SERVER_KEYS.name, CRYPTOGRAPHY.name)),
)
OPENING: Final = Comparison(
    title="Opening a request",
    description=(
        f"HPKE (X25519, HKDF-SHA256, AES-256-GCM) of {len(REQUEST):,} bytes, from the encapsulated key and the "
        "ciphertext to the plaintext."
    ),
    reference=CRYPTOGRAPHY.name,
    speedup_title="speed against cryptography",
    panel=Panel("Opening a request", f"HPKE, {len(REQUEST):,} bytes", (SERVER_KEYS.name, CRYPTOGRAPHY.name)),
)
COMPARISONS: Final = (SEALING, OPENING)


def _frame_sealer() -> Callable[[], object]:
    server = KeyPair.generate()
    client = RequestSealer(server.public_key)
    opener = RequestOpener(client.encapsulated_key, [server])
    opener.feed(client.seal(b"hello"))
    seal = opener.response_sealer().seal
    return lambda: seal(TOKEN)


def _counting_aesgcm() -> Callable[[], object]:
    aead = AESGCM(bytes(32))
    numbers = itertools.count()
    return lambda: aead.encrypt(next(numbers).to_bytes(12), TOKEN, None)


@pytest.mark.parametrize(
    ("contestant", "prepare"), [(SERVER_KEYS.name, _frame_sealer), (CRYPTOGRAPHY.name, _counting_aesgcm)]
)
def bench_sealing(measure: Measure, contestant: str, prepare: Callable[[], Callable[[], object]]) -> None:
    measure(SEALING, contestant, prepare())


def _request_opening() -> Callable[[], bytes]:
    server = KeyPair.generate()
    client = RequestSealer(server.public_key)
    encapsulated_key, body = client.encapsulated_key, client.seal(REQUEST)
    return lambda: RequestOpener(encapsulated_key, [server]).feed(body)


def _single_shot_opening() -> Callable[[], bytes]:
    suite = hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
    private_key = X25519PrivateKey.generate()
    ciphertext = suite.encrypt(REQUEST, private_key.public_key(), INFO)
    return lambda: suite.decrypt(ciphertext, private_key, INFO)


@pytest.mark.parametrize(
    ("contestant", "prepare"), [(SERVER_KEYS.name, _request_opening), (CRYPTOGRAPHY.name, _single_shot_opening)]
)
def bench_opening(measure: Measure, contestant: str, prepare: Callable[[], Callable[[], bytes]]) -> None:
    open_request = prepare()
    assert open_request() == REQUEST
    measure(OPENING, contestant, open_request)
