"""The examples for Node run: the OpenAI SDK for JavaScript and a protected server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples.conftest import Server

ROOT = Path(__file__).parents[2]
NODE = ROOT / "examples" / "node"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules" / "openai").is_dir(),
    reason="Node or the npm package openai is missing: install Node 20 or newer with npm, then run `make test`",
)


def run(program: str, **environment: str) -> str:
    """Run a program of JavaScript beside the examples and return what it printed."""
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", program],
        cwd=NODE,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs" / "javascript.md").read_text()
    assert re.findall(r"```js\n(.*?)```", page, re.DOTALL) == [(NODE / "over_ehbp.mjs").read_text()]


def test_the_sdk_streams_over_npm_ehbp(server: Server) -> None:
    assert re.fullmatch(r"(\S+ ){8,}\S*", run((NODE / "over_ehbp.mjs").read_text(), SERVER=server.url))
    assert server.sealed_chats() == 1


def test_the_sdk_notices_no_rotation_over_npm_ehbp(server: Server) -> None:
    example = (NODE / "over_ehbp.mjs").read_text()
    again = """
        await fetch(`${server}/rotate`);
        const answer = await openai.chat.completions.create({ model: "toy-rambler", messages: question });
        process.stdout.write(`\\n${answer.choices[0].message.content}`);
    """
    first, _, second = run(example + again, SERVER=server.url).partition("\n")
    assert first
    assert second
    assert server.sealed_chats() == 2
    assert server.app.state.ephemeral_keys.status.refusals == {"key_mismatch": 1}
