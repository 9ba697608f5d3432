"""The npm package ehbp, unchanged, on Node, against this server while its keys rotate."""

import json
import pathlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI

NODE_CLIENT = pathlib.Path(__file__).parent / "node"

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None or not (NODE_CLIENT / "node_modules" / "ehbp").is_dir(),
    reason="Node or the npm package ehbp is missing: install Node 20 or newer with npm, then run `make test`",
)

Command = Callable[..., dict[str, Any]]


@pytest.fixture
def client() -> Iterator[Command]:
    """Sends a command to the client and returns its answer."""
    command = ["node", "ehbp_client.mjs"]
    with subprocess.Popen(
        command, cwd=NODE_CLIENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def send(do: str, **arguments: str) -> dict[str, Any]:
            stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            answer: dict[str, Any] = json.loads(stdout.readline())
            return answer

        yield send
        stdin.close()
        assert process.wait(10) == 0


def test_discovery_and_a_plain_answer(app: FastAPI, url: str, client: Command) -> None:
    assert client("discover", url=url) == {"key": app.state.ephemeral_keys.current.public_key.hex()}
    answer = client("post", url=f"{url}/echo", body="hello")
    assert (answer["status"], "".join(answer["chunks"])) == (200, '{"body":"hello"}')


def test_an_event_stream(url: str, client: Command) -> None:
    client("discover", url=url)
    answer = client("post", url=f"{url}/events", body="one two three")
    assert "".join(answer["chunks"]) == "data: one\n\ndata: two\n\ndata: three\n\n"


def test_a_long_body(url: str, client: Command) -> None:
    client("discover", url=url)
    body = "0123456789" * 200_000
    assert json.loads("".join(client("post", url=f"{url}/echo", body=body)["chunks"])) == {"body": body}


def test_an_answer_that_the_app_compressed(url: str, client: Command) -> None:
    client("discover", url=url)
    answer = client("post", url=f"{url}/compressed", body="hello")
    assert (answer["status"], "".join(answer["chunks"])) == (200, "hello")


def test_one_rotation_goes_unnoticed_and_two_are_a_mismatch_to_recover_from(
    app: FastAPI, url: str, client: Command
) -> None:
    ring = app.state.ephemeral_keys
    client("discover", url=url)
    ring.refresh()
    assert client("post", url=f"{url}/echo", body="once")["status"] == 200
    ring.refresh()
    assert client("post", url=f"{url}/echo", body="twice")["error"] == "KeyConfigMismatchError"
    client("discover", url=url)
    assert client("post", url=f"{url}/echo", body="again")["status"] == 200
