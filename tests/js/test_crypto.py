"""The cryptography of the browser's client against RFC 9180's vectors and the protocol's check value."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.js.engines import Engine

VECTORS = Path(__file__).parents[1] / "vectors"
VECTOR = json.loads((VECTORS / "hpke_x25519_sha256_aes256gcm.json").read_text())
RUN = Path(__file__).with_name("crypto.js").read_text().partition("\n")[2]

# EHBP's check value.
RESPONSE_KEY = bytes.fromhex("40ec528847cd4e928449f2ed1a70a7d1e8ee317d5e900424fc1dd5b0475b97f7")
RESPONSE_BASE_NONCE = int("f8b0ce9466f27aa6243c65f9", 16)
# Headers of an answer, and for how many seconds it may be used again.
LIFETIMES: list[tuple[dict[str, str], int]] = [
    ({"Cache-Control": "max-age=60"}, 60),
    ({"Cache-Control": 'private, Max-Age="60"'}, 60),
    ({"Cache-Control": "max-age=60", "Age": "20"}, 40),
    ({"Cache-Control": "max-age=60", "Age": "61"}, 0),
    ({"Cache-Control": "max-age=60", "Age": "nonsense"}, 60),
    ({"Cache-Control": "max-age=60", "Age": "-60"}, 60),
    ({"Cache-Control": "max-age=60, no-store"}, 0),
    ({"Cache-Control": "s-maxage=60"}, 0),
    ({"Cache-Control": "max-age=" + "9" * 400}, 3600),
    ({}, 0),
]
ANSWERS = [b"one", b"two", b"three"]
INPUTS = {
    "vector": VECTOR,
    "response": {
        "secret": bytes(range(0x20)).hex(),
        "enc": bytes(range(0x20, 0x40)).hex(),
        "nonce": bytes(range(0x40, 0x60)).hex(),
        "ciphertexts": [
            AESGCM(RESPONSE_KEY).encrypt((RESPONSE_BASE_NONCE ^ i).to_bytes(12, "big"), answer, None).hex()
            for i, answer in enumerate(ANSWERS)
        ],
    },
    "frames": {
        "whole": ["00000002aabb00000001cc"],
        "byte by byte": ["00", "00", "00", "02", "aa", "bb", "00", "00", "00", "01", "cc"],
        "empty ones between": ["0000000000000002aabb0000000000000001cc00000000"],
        "ends inside a length": ["00000002aabb0000"],
        "ends inside a frame": ["00000002aabb00000002cc"],
        "too large": ["01000001"],
        "nothing": [],
    },
    "caching": [headers for headers, _ in LIFETIMES],
}


@pytest.fixture(scope="module")
def results(engine: Engine) -> dict[str, Any]:
    """The results of the modules for INPUTS."""
    results: dict[str, Any] = engine.run(RUN, **INPUTS)
    return results


def test_the_sender_is_that_of_rfc_9180(results: dict[str, Any]) -> None:
    assert results["encapsulatedKey"] == VECTOR["enc"]
    assert results["sealed"] == {str(e["sequence_number"]): e["ct"] for e in VECTOR["encryptions"]}
    assert results["exported"] == [export["exported_value"] for export in VECTOR["exports"]]


def test_responses_are_opened_in_their_order_only(results: dict[str, Any]) -> None:
    assert results["opened"] == [answer.hex() for answer in ANSWERS]
    assert results["outOfOrder"] == "string"


@pytest.mark.parametrize("name", ["whole", "byte by byte", "empty ones between"])
def test_frames_are_found_wherever_the_stream_is_cut(results: dict[str, Any], name: str) -> None:
    assert results["read"][name] == {"found": ["aabb", "cc"], "error": None}


@pytest.mark.parametrize(
    ("name", "found", "error"),
    [
        ("ends inside a length", ["aabb"], "ended inside a frame"),
        ("ends inside a frame", ["aabb"], "ended inside a frame"),
        ("too large", [], "announces 16777217 bytes"),
    ],
)
def test_a_stream_that_is_cut_or_absurd_is_an_error(
    results: dict[str, Any], name: str, found: list[str], error: str
) -> None:
    assert results["read"][name]["found"] == found
    assert error in results["read"][name]["error"]


def test_no_frames_are_no_error(results: dict[str, Any]) -> None:
    assert results["read"]["nothing"] == {"found": [], "error": None}


def test_a_key_of_small_order_is_refused(results: dict[str, Any]) -> None:
    assert results["smallOrder"] == "The server's X25519 key cannot be used: nothing was sealed to it."


def test_a_key_is_kept_as_long_as_its_answer_allows_and_no_longer_than_an_hour(results: dict[str, Any]) -> None:
    assert results["lifetimes"] == [lifetime_s for _, lifetime_s in LIFETIMES]
