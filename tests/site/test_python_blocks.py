"""Each Python block of the pages runs as it stands, in a process of its own, against a real server if it asks one."""

import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from examples.demo.app import create_app
from tests.helpers.servers import running
from tests.site import held_elsewhere
from tests.site.blocks import Block, of

DEMO = "http://127.0.0.1:8000"

# What a page leaves to its reader, for a page and some words of a block.
BEFORE = {
    ("docs/client.md", "fetch_signature"): """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from server_keys.client import sealed_client

        from urllib.request import urlopen

        signing = Ed25519PrivateKey.generate()
        long_lived_key = signing.public_key()

        def fetch_signature(url):
            return signing.sign(urlopen(url).read())
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
    ("docs/client.md", "fetch_signature"): """
        assert client.post("http://127.0.0.1:8000/hello", json={"name": "Ada"}).json() == "Hello, Ada"
        signing = Ed25519PrivateKey.generate()
        try:
            sealed_client(verify_answer=verify_answer).post("http://127.0.0.1:8000/hello", json={"name": "Ada"})
        except Exception as error:
            assert type(error).__name__ == "InvalidSignature"
        else:
            raise AssertionError("a key that nobody vouched for was taken")
    """,
}

# What a block prints.
PRINTED = {
    ("README.md", "sealed_client() as client"): "Hello, Ada\n",
    ("docs/index.md", "sealed_client() as client"): "Hello, Ada\n",
    ("docs/index.md", "stream=True"): r"(\S+ ){8,}\S+",
    ("docs/client.md", "OpenAI(base_url"): r"(\S+ ){8,}\S+\n",
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
def server() -> Iterator[str]:
    """The URL of the demo's app, which greets, too."""
    app = create_app(1000)

    async def hello(person: dict[str, str]) -> str:
        return f"Hello, {person['name']}"

    app.add_api_route("/hello", hello, methods=["POST"])
    app.router.routes.insert(0, app.router.routes.pop())  # before the demo's page, which is mounted at the root
    with running(app) as url:
        yield url


def run(code: str) -> str:
    """Run code in a process of its own and return what it printed."""
    # A block need not close what it opens.
    command = [sys.executable, "-W", "error", "-W", "ignore:unclosed:ResourceWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def of_block(table: dict[tuple[str, str], str], block: Block) -> str:
    """Return what a table says of a block."""
    return "".join(text for (page, words), text in table.items() if page == block.page and words in block.code)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_block_runs(block: Block, server: str) -> None:
    parts = [dedented(of_block(BEFORE, block)), block.code]
    if "app = " in block.code or of_block(AFTER, block):
        parts += [START, dedented(of_block(AFTER, block))]
    printed = run("\n".join(parts).replace(DEMO, server))
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
