"""Each Python block of the pages runs as it stands, in a process of its own, against a real server if it asks one."""

import asyncio
import hashlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from examples.demo.app import create_app
from tests.helpers.servers import running
from tests.helpers.signed_answers import OtherSigner
from tests.site import held_elsewhere
from tests.site.blocks import Block, of

DEMO = "http://127.0.0.1:8000"

# The pages show its identity.
SIGNER = OtherSigner(bytes(range(32)))

# What a page leaves to its reader, for a page and some words of a block.
BEFORE = {
    # A report that its maker has signed stands for that of a confidential VM.
    ("docs/client.md", "fetch_report"): """
        import hashlib
        from urllib.request import urlopen

        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from server_keys.client import sealed_client

        signing = Ed25519PrivateKey.generate()

        def fetch_report(url):
            digest = hashlib.sha512(urlopen(url).read()).digest()
            return digest, signing.sign(digest)

        def attests(report, digest):
            signing.public_key().verify(report[1], report[0])
            return report[0] == digest
    """,
    ("docs/identity.md", 'identity="server.key"'): """
        import subprocess
        import sys

        command = [sys.executable, "-m", "server_keys.command", "identity", "new", "server.key"]
        identity = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    """,
    ("docs/identity.md", "sign_ed25519"): """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from fastapi import FastAPI

        app = FastAPI()

        class hsm:
            signed = []

            def sign_ed25519(key, message):
                assert (key, len(message)) == ("model-server", 1317)
                hsm.signed.append(message)
                return Ed25519PrivateKey.from_private_bytes(bytes(range(32))).sign(message)
    """,
}

# What shows that a block does what its page says. An app that a block makes is started in any case.
AFTER = {
    ("README.md", "protect(app"): "assert asked('/hello', {'name': 'Ada'}).json() == 'Hello, Ada'",
    ("docs/index.md", "protect(app"): "assert asked('/hello', {'name': 'Ada'}).json() == 'Hello, Ada'",
    ("docs/fastapi.md", "required=True)\n"): """
        assert asked("/hello", {"name": "Ada"}).json() == "Hello, Ada"
        with TestClient(app) as plain:
            assert plain.post("/hello", json={"name": "Ada"}).status_code == 400
    """,
    ("docs/fastapi.md", "server_keys.opened"): """
        assert asked("/sealed", {}).json() is True
        with TestClient(app) as plain:
            assert plain.post("/sealed", json={}).json() is False
    """,
    ("docs/fastapi.md", "EphemeralKeys"): """
        with TestClient(app) as plain:
            key = plain.get("/key").json()
            assert plain.post("/agree", params={"peer_public_key": key}).json() == 32
    """,
    ("docs/fastapi.md", "def build_app"): """
        assert app.title == "sealed"
        with TestClient(app) as plain:
            assert plain.post("/", json={}).status_code == 400
    """,
    ("docs/client.md", "fetch_report"): """
        assert client.post("http://127.0.0.1:8000/hello", json={"name": "Ada"}).json() == "Hello, Ada"
        fetch_report = lambda url: (bytes(64), signing.sign(bytes(64)))
        try:
            sealed_client(verify_answer=verify_answer).post("http://127.0.0.1:8000/hello", json={"name": "Ada"})
        except ValueError as error:
            assert str(error) == "the report is about other keys"
        else:
            raise AssertionError("a key that nobody vouched for was taken")
    """,
    ("docs/identity.md", 'identity="server.key"'): """
        with TestClient(app):
            status = app.state.ephemeral_keys.status.identity
            assert (status.identity, status.is_published) == (identity, True)
    """,
    ("docs/identity.md", "sign_ed25519"): """
        with TestClient(app) as plain:
            assert plain.get("/.well-known/hpke-keys").status_code == 200
            assert app.state.ephemeral_keys.status.identity.is_published
        assert len(hsm.signed) == 2  # one for each of the two starts
    """,
    ("docs/identity.md", "sealed_client(identity"): """
        from server_keys.client import KeyRejectedError

        other = "ed25519:O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"
        try:
            sealed_client(identity=other).post("http://127.0.0.1:8000/hello", json={"name": "Ada"})
        except KeyRejectedError as error:
            assert "another identity signed it" in str(error)
        else:
            raise AssertionError("a key of another identity was taken")
    """,
}

# What a block prints.
PRINTED = {
    ("README.md", "sealed_client() as client"): "Hello, Ada\n",
    ("docs/index.md", "sealed_client() as client"): "Hello, Ada\n",
    ("docs/index.md", "stream=True"): r"(\S+ ){8,}\S+",
    ("docs/client.md", "OpenAI(base_url"): r"(\S+ ){8,}\S+\n",
    ("docs/identity.md", "sealed_client(identity"): "Hello, Ada\n",
    ("docs/fastapi.md", "starts with the key"): r"starts with the key [0-9a-f]{16}\n",
}

START = '''
import asyncio
import logging

logging.getLogger("server_keys").setLevel("ERROR")  # refusals are warnings
app = globals().get("app")
if hasattr(app, "state"):
    import httpx2
    from fastapi.testclient import TestClient
    from server_keys.client import AsyncSealedTransport

    with TestClient(app):
        assert app.state.ephemeral_keys.status.key_id


def asked(path, body):
    """Return the app's answer to a sealed request."""

    async def ask():
        transport = AsyncSealedTransport(httpx2.ASGITransport(app))
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://app") as client,
        ):
            answer = await client.post(path, json=body)
            assert "Ehbp-Response-Nonce" in answer.headers
            return answer

    return asyncio.run(ask())
'''

BLOCKS = [block for block in of("python") if not held_elsewhere.test_of(block)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the demo's app, which greets, too. Its keys are signed."""
    path = SIGNER.write_to(tmp_path_factory.mktemp("identity") / "server.key")
    app = create_app(1000, identity=path)

    async def hello(person: dict[str, str]) -> str:
        return f"Hello, {person['name']}"

    app.add_api_route("/hello", hello, methods=["POST"])
    app.router.routes.insert(0, app.router.routes.pop())  # before the demo's page, which is mounted at the root
    with running(app) as url:
        yield url


def run(code: str, folder: Path) -> str:
    """Run code in a process of its own, in a folder, and return what it printed."""
    # A block need not close what it opens.
    command = [sys.executable, "-W", "error", "-W", "ignore:unclosed:ResourceWarning", "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def of_block(table: dict[tuple[str, str], str], block: Block) -> str:
    """Return what a table says of a block."""
    return "".join(text for (page, words), text in table.items() if page == block.page and words in block.code)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_block_runs(block: Block, server: str, tmp_path: Path) -> None:
    parts = [dedented(of_block(BEFORE, block)), block.code]
    if "app = " in block.code or of_block(AFTER, block):
        parts += [START, dedented(of_block(AFTER, block))]
    printed = run("\n".join(parts).replace(DEMO, server), tmp_path)
    expected = of_block(PRINTED, block)
    # The start of an app prints, too, once for each of them.
    assert re.fullmatch(f"({expected})*", printed), printed
    assert not expected or printed


@pytest.mark.parametrize("table", [BEFORE, AFTER, PRINTED], ids=["before", "after", "printed"])
def test_each_entry_is_for_one_block(table: dict[tuple[str, str], str]) -> None:
    for page, words in table:
        assert sum(block.page == page and words in block.code for block in BLOCKS) == 1, (page, words)


def dedented(code: str) -> str:
    """Return code without its common indentation, which may begin on its second line."""
    return re.sub(r"^ {8}", "", code, flags=re.MULTILINE)


IDENTITY, MEASUREMENT = SIGNER.identity, bytes(range(48))


class Quotes:
    """Stands for dcap_qvl 0.7: what it says of a quote that is genuine. The names are those of its stub."""

    INTEL_PCS_URL = "https://api.trustedservices.intel.com"

    def __init__(self, *, status: str = "UpToDate", kind: str = "TDX", **report: bytes) -> None:
        right = {
            "td_attributes": bytes.fromhex("0000001000000000"),
            "mr_td": MEASUREMENT,
            "report_data": hashlib.sha512(IDENTITY.encode()).digest(),
        }
        self._verified = SimpleNamespace(status=status, advisory_ids=["INTEL-SA-00001"])
        self._parsed = SimpleNamespace(
            is_tdx=lambda: kind == "TDX", quote_type=lambda: kind, report=SimpleNamespace(**{**right, **report})
        )

    async def get_collateral_and_verify(self, quote: bytes, url: str) -> SimpleNamespace:
        assert (quote, url) == (b"quote", self.INTEL_PCS_URL)
        return self._verified

    def parse_quote(self, quote: bytes) -> SimpleNamespace:
        assert quote == b"quote"
        return self._parsed


def checked(quotes: Quotes, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what the page's check of a report says of a quote."""
    (block,) = [block for block in of("python") if "import dcap_qvl" in block.code]
    monkeypatch.setitem(sys.modules, "dcap_qvl", quotes)
    names: dict[str, Any] = {}
    exec(textwrap.dedent(block.code), names)
    identity: str = asyncio.run(names["checked_identity"](IDENTITY, b"quote", MEASUREMENT))
    return identity


def test_the_check_of_a_report_refuses_each_report_that_is_not_right(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checked(Quotes(), monkeypatch) == IDENTITY
    for quotes, why in [
        (Quotes(kind="SGX"), "the quote is of SGX, not of TDX"),
        (Quotes(status="OutOfDate"), r"the platform is OutOfDate: \['INTEL-SA-00001'\]"),
        (Quotes(td_attributes=bytes.fromhex("0100001000000000")), "the VM can be debugged"),
        (Quotes(mr_td=bytes(48)), "another VM was started: 0{96}"),
        (Quotes(report_data=hashlib.sha512(b"another").digest()), "the report is about another identity"),
    ]:
        with pytest.raises(ValueError, match=why):
            checked(quotes, monkeypatch)
