"""The examples that talk to `server-keys seal` run, and nothing that they say reaches the server in plaintext."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.conftest import Server
from tests.helpers.commands import serving

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
WORDS = re.compile(r"(\S+ ){8,}\S*")

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing: `apt-get install curl`")
needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="Go is missing: `apt-get install golang-go`")
needs_langchain = pytest.mark.skipif(
    importlib.util.find_spec("langchain_openai") is None, reason="langchain-openai is missing: `make test` brings it"
)
needs_node = pytest.mark.skipif(
    shutil.which("node") is None or not (EXAMPLES / "node" / "node_modules" / "openai").is_dir(),
    reason="Node or the npm package openai is missing: install Node 20 or newer with npm, then run `make test`",
)


@pytest.fixture
def base_url(server: Server) -> Iterator[str]:
    """The base URL of the proxy before the server."""
    with serving("seal", "--to", server.url, "--listen", "127.0.0.1:0") as proxy:
        yield f"{proxy.url}/v1"


def run(*command: str, folder: Path = ROOT, **environment: str) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@needs_curl
def test_curl(server: Server, base_url: str) -> None:
    lines = run("sh", str(EXAMPLES / "curl" / "chat.sh"), "What does the river keep?", BASE_URL=base_url).splitlines()
    events = [line for line in lines if line]
    assert all(line.startswith("data: ") for line in events)
    assert len(events) > 8
    assert events[-1] == "data: [DONE]"
    assert server.sealed_chats() == 1


@needs_curl
def test_curl_says_what_the_server_answered(base_url: str) -> None:
    done = subprocess.run(
        ["sh", str(EXAMPLES / "curl" / "chat.sh")],
        env=os.environ | {"BASE_URL": base_url.replace("/v1", "/nothing")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (22, '{"detail":"Method Not Allowed"}')


@needs_go
def test_go(server: Server, base_url: str) -> None:
    assert WORDS.fullmatch(run("go", "run", "main.go", "Hello", folder=EXAMPLES / "go", BASE_URL=base_url))
    assert server.sealed_chats() == 1


@needs_go
def test_the_example_for_go_is_formatted_and_vetted() -> None:
    assert run("gofmt", "-l", ".", folder=EXAMPLES / "go") == ""
    assert run("go", "vet", "main.go", folder=EXAMPLES / "go") == ""


@needs_go
def test_the_page_shows_a_part_of_the_example_for_go() -> None:
    (shown,) = re.findall(r"```go\n(.*?)```", (ROOT / "docs" / "go.md").read_text(), re.DOTALL)
    lines = (EXAMPLES / "go" / "main.go").read_text().replace("\n\t", "\n")
    assert shown in lines


@needs_node
def test_node(server: Server, base_url: str) -> None:
    assert WORDS.fullmatch(run("node", "over_proxy.mjs", folder=EXAMPLES / "node", BASE_URL=base_url))
    assert server.sealed_chats() == 1


@needs_langchain
def test_langchain(server: Server, base_url: str) -> None:
    printed = run(sys.executable, str(EXAMPLES / "langchain" / "over_proxy.py"), BASE_URL=base_url)
    assert WORDS.fullmatch(printed)
    assert server.sealed_chats() == 1


def test_the_setting_of_openais_sdk_is_enough(server: Server, base_url: str) -> None:
    program = """
from openai import OpenAI

with OpenAI() as client:
    question = [{"role": "user", "content": "Hello"}]
    print(client.chat.completions.create(model="toy-rambler", messages=question).choices[0].message.content)
"""
    assert WORDS.match(run(sys.executable, "-c", program, OPENAI_BASE_URL=base_url, OPENAI_API_KEY="unused"))
    assert server.sealed_chats() == 1
