"""What `server-keys seal` tells of itself: whether there is a key of the server to seal to, which passed all checks."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from server_keys import protect
from server_keys._sealing.protocol import KEY_CONFIG_PATH
from tests.command.test_status import LISTEN, STATUS, status_url
from tests.helpers.commands import Running, serving
from tests.helpers.server_processes import free_port
from tests.helpers.servers import STANDARD, running
from tests.helpers.signed_answers import OtherSigner
from tests.helpers.wire_tap import tapped

SIGNER = OtherSigner(bytes(range(32)))
STRANGER = OtherSigner(bytes(range(1, 33)))


class Server:
    """A protected app that counts questions for its key, and may be too busy for them."""

    def __init__(self, identity: Path) -> None:
        app = FastAPI()
        self.calls: list[str] = []
        self.questions = 0
        self.is_busy = False

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def everything(path: str) -> dict[str, str]:
            self.calls.append(path)
            return {"path": path}

        self._app = protect(app, required=True, share=None, identity=identity)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or lifespan."""
        if scope["type"] == "http" and scope["path"] == KEY_CONFIG_PATH:
            self.questions += 1
            if self.is_busy:
                start: Message = {"type": "http.response.start", "status": 503, "headers": []}
                await send(start)
                return await send({"type": "http.response.body", "body": b""})
        await self._app(scope, receive, send)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(SIGNER.write_to(tmp_path / "server.key"))


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with running(server, STANDARD) as url:
        yield url


def readiness(sealed: Running) -> tuple[int, Any]:
    answer = httpx2.get(f"{status_url(sealed)}/ready", timeout=30)
    assert answer.headers["Cache-Control"] == "no-store"
    return answer.status_code, answer.json()


def test_it_is_ready_with_a_key_that_it_checked_and_asks_for_it_once(server: Server, url: str) -> None:
    with serving("seal", "--to", url, *LISTEN, *STATUS, "--identity", SIGNER.identity) as sealed:
        for _ in range(5):
            assert readiness(sealed) == (200, {"ready": True})
        assert httpx2.post(f"{sealed.url}/x", content=b"x").json() == {"path": "x"}
        # It is the key to which the request was sealed, and nothing else was sent.
        assert (server.questions, server.calls) == (1, ["x"])


def test_with_another_identity_it_is_not_ready_and_says_why(url: str) -> None:
    with serving("seal", "--to", url, *LISTEN, *STATUS, "--identity", STRANGER.identity) as sealed:
        status, said = readiness(sealed)
    assert (status, said["ready"]) == (503, False)
    assert "another identity signed it" in said["reason"]


@pytest.mark.parametrize("way", ["def", "async def"])
@pytest.mark.parametrize(("option", "arguments"), [("--verify-key", "key"), ("--verify-answer", "answer, url")])
def test_a_check_of_the_operators_counts_whatever_it_raises(
    server: Server, url: str, tmp_path: Path, way: str, option: str, arguments: str
) -> None:
    (tmp_path / "pins.py").write_text(f"{way} verify({arguments}):\n    raise ValueError('hunter2')\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    with serving("seal", "--to", url, *LISTEN, *STATUS, option, "pins:verify", environment=environment) as sealed:
        status, said = readiness(sealed)
        refused = httpx2.post(f"{sealed.url}/x", content=b"x")
        log = sealed.log
    name = option.removeprefix("--").replace("-", "_")
    reason = f"{name} refused the server's keys: it raised ValueError"
    assert (status, said["reason"]) == (503, reason)
    assert (refused.status_code, refused.json()["message"]) == (502, reason)
    assert server.calls == []
    # Its words are for the operator alone.
    assert f"{name} refused a server's keys: ValueError: hunter2" in log


def test_a_check_of_the_operators_that_can_ask_nobody_refuses_no_key(url: str, tmp_path: Path) -> None:
    (tmp_path / "pins.py").write_text("import httpx2\ndef verify(key):\n    raise httpx2.ConnectError('hunter2')\n")
    environment = {"PYTHONPATH": str(tmp_path)}
    with serving(
        "seal", "--to", url, *LISTEN, *STATUS, "--verify-key", "pins:verify", environment=environment
    ) as sealed:
        status, said = readiness(sealed)
        failed = httpx2.post(f"{sealed.url}/x", content=b"x")
    reason = "verify_key could ask nobody about the server's keys: it raised ConnectError"
    assert (status, said["reason"]) == (503, reason)
    assert (failed.status_code, failed.json()["message"]) == (502, reason)


def test_it_becomes_ready_with_the_server_and_stays_so_while_the_key_serves(server: Server) -> None:
    port = free_port()
    with serving("seal", "--to", f"http://127.0.0.1:{port}", *LISTEN, *STATUS) as sealed:
        status, said = readiness(sealed)
        assert (status, said["ready"]) == (503, False)
        assert "takes no connection" in said["reason"]
    with (
        running(server, STANDARD) as url,
        tapped(int(url.rpartition(":")[2])) as way,
        serving("seal", "--to", way.url, *LISTEN, *STATUS) as sealed,
    ):
        server.is_busy = True
        status, said = readiness(sealed)
        assert status == 503
        assert said["reason"] == f"{way.url} answered with status 503 when asked for its key"
        server.is_busy = False
        until = time.monotonic() + 10
        while readiness(sealed)[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        way.stop()
        assert readiness(sealed) == (200, {"ready": True})


def test_a_server_without_a_key_is_told_of() -> None:
    with running(FastAPI(), STANDARD) as url, serving("seal", "--to", url, *LISTEN, *STATUS) as sealed:
        status, said = readiness(sealed)
    assert status == 503
    assert "status 404 instead of the server's key" in said["reason"]


@pytest.mark.parametrize("path", ["/", "/x", "/ready/x", KEY_CONFIG_PATH])
def test_nothing_is_sealed_from_its_own_address(path: str, server: Server, url: str) -> None:
    with serving("seal", "--to", url, *LISTEN, *STATUS) as sealed:
        named = {"Host": sealed.url.removeprefix("http://")}
        for headers in ({}, named):
            answer = httpx2.post(status_url(sealed) + path, content=b"x", headers=headers)
            assert answer.status_code == 404
        assert httpx2.post(f"{sealed.url}/ready", content=b"x").json() == {"path": "ready"}
        assert server.calls == ["ready"]
        assert httpx2.get(f"{status_url(sealed)}/metrics").status_code == 404


def test_others_may_probe_it_where_no_plaintext_is_taken_from_them(url: str) -> None:
    """Kubernetes probes at the pod's address, and plaintext must not come in there."""
    with serving("seal", "--to", url, *LISTEN, "--status-listen", "127.0.0.2:0") as sealed:
        assert status_url(sealed).startswith("http://127.0.0.2:")
        assert readiness(sealed) == (200, {"ready": True})
