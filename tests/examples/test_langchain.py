"""The example for LangChain runs, and nothing that it says leaves in plaintext."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.examples.conftest import Server

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    importlib.util.find_spec("langchain_openai") is None, reason="langchain-openai is missing: `make test` brings it"
)
def test_it_asks_and_streams_through_the_seal(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "langchain" / "sealed_chat.py")],
        env=os.environ | {"BASE_URL": f"{server.url}/v1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    whole, streamed = done.stdout.split("\n", 1)
    assert len(whole.split()) > 8
    assert len(streamed.split()) > 8
    assert server.sealed_chats() == 2
