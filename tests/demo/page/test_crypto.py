"""The cryptography of the demo's page against RFC 9180's vectors and the protocol's check value."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from examples.demo.app import create_app
from tests.demo.page.chromium import chromium, needs_chromium
from tests.helpers.servers import running

PROJECT = Path(__file__).parents[3]
VECTORS = PROJECT / "tests" / "vectors"
VECTOR = json.loads((VECTORS / "hpke_x25519_sha256_aes256gcm.json").read_text())
RUN = Path(__file__).with_name("crypto.js").read_text()

# EHBP's check value.
RESPONSE_KEY = bytes.fromhex("40ec528847cd4e928449f2ed1a70a7d1e8ee317d5e900424fc1dd5b0475b97f7")
RESPONSE_BASE_NONCE = int("f8b0ce9466f27aa6243c65f9", 16)
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
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("chromium", marks=needs_chromium),
        pytest.param("node", marks=pytest.mark.skipif(shutil.which("node") is None, reason="Node is missing")),
    ],
)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the page's modules make of INPUTS."""
    if request.param == "chromium":
        with running(create_app(1000)) as url, chromium() as browser:
            page = browser.new_page()
            page.goto(url)
            yield page.evaluate(RUN, {"base": f"{url}/js", **INPUTS})
    else:
        folder = tmp_path_factory.mktemp("page")
        # Node takes .js files for modules of the old kind unless a package says otherwise.
        (folder / "package.json").write_text('{"type": "module"}')
        for script in (PROJECT / "js").glob("*.js"):
            (folder / script.name).write_text(script.read_text())
        inputs = json.dumps({"base": folder.as_uri(), **INPUTS})
        run = folder / "run.mjs"
        run.write_text(
            f"const run = {RUN.split(chr(10), 1)[1].rstrip()};\nconsole.log(JSON.stringify(await run({inputs})));"
        )
        ran = subprocess.run(
            ["node", "--no-warnings", str(run)], capture_output=True, text=True, timeout=60, check=False
        )
        assert ran.returncode == 0, ran.stderr
        yield json.loads(ran.stdout)


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


def test_keys_and_configurations_of_another_kind_are_refused(results: dict[str, Any]) -> None:
    assert results["smallOrder"] == "refused"
    assert results["config"] == VECTOR["pkRm"]
    assert "not a key configuration" in results["foreignConfig"]
