"""A server with an identity and a client that names it, over a real connection, and somebody between them."""

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from server_keys import protect
from server_keys.client import KeyRejectedError
from server_keys.client.httpx2 import SealedTransport
from tests.helpers.server_processes import ROOT, free_port
from tests.helpers.servers import running
from tests.helpers.signed_answers import OtherSigner

SIGNER, STRANGER = OtherSigner(bytes(range(32))), OtherSigner(bytes(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return SIGNER.write_to(tmp_path / "server.key")


def test_the_client_knows_its_server_through_rotations(path: Path) -> None:
    app = protect(FastAPI(), 1, share=None, identity=path, required="v1")

    @app.post("/echo")
    async def echo(content: dict[str, int]) -> dict[str, int]:
        return content

    with running(app) as url, httpx2.Client(transport=SealedTransport(identity=SIGNER.identity)) as client:
        for number in range(30):
            response = client.post(f"{url}/echo", json={"number": number})
            assert (response.status_code, response.json()) == (200, {"number": number})
            app.state.ephemeral_keys.refresh()


def test_a_gateway_with_a_key_of_its_own_is_refused(path: Path) -> None:
    gateway = protect(FastAPI(), share=None)
    with (
        running(gateway) as url,
        httpx2.Client(transport=SealedTransport(identity=SIGNER.identity)) as client,
        pytest.raises(KeyRejectedError, match="it is not signed"),
    ):
        client.post(f"{url}/echo", content=b"x")
    other = protect(FastAPI(), share=None, identity=path)
    with (
        running(other) as url,
        httpx2.Client(transport=SealedTransport(identity=STRANGER.identity)) as client,
        pytest.raises(KeyRejectedError, match="another identity signed it"),
    ):
        client.post(f"{url}/echo", content=b"x")


SERVER = """
from fastapi import FastAPI
from server_keys import protect

app = protect(FastAPI(), share=None, identity={path!r})
"""


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (SIGNER.pem, 0o644, "can be read or written by every user"),
        (SIGNER.pem, 0o660, "can be written by its group"),
        (b"", 0o600, "is empty"),
        (b"-----BEGIN PUBLIC KEY-----\n", 0o600, "holds no private key in PKCS#8 form"),
        (None, 0o600, "does not exist"),
    ],
)
def test_a_real_server_does_not_start_and_says_why_in_one_line(
    tmp_path: Path, text: bytes | None, mode: int, why: str
) -> None:
    path = tmp_path / "server.key"
    if text is not None:
        path.write_bytes(text)
        path.chmod(mode)
    (tmp_path / "refused_app.py").write_text(SERVER.format(path=str(path)))
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        str(tmp_path),
        "--port",
        str(free_port()),
        "refused_app:app",
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode != 0
    (line,) = [line for line in ended.stderr.splitlines() if str(path) in line]
    assert why in line
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("mode", [0o440, 0o400])
def test_a_file_as_kubernetes_mounts_it_starts_workers_that_all_sign(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "..2026_11_27"
    folder.mkdir()
    (folder / "server.key").write_bytes(SIGNER.pem)
    (folder / "server.key").chmod(mode)
    (tmp_path / "server.key").symlink_to("..2026_11_27/server.key")
    (tmp_path / "signing_app.py").write_text(SERVER.format(path=str(tmp_path / "server.key")).replace("None", '"auto"'))
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(tmp_path), "--port", str(port), "--workers", "2"]
    with subprocess.Popen([*command, "signing_app:app"], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            started = 0
            while started < 2:
                line = process.stderr.readline()
                assert line, "the server ended"
                started += "Application startup complete" in line
            for _ in range(10):
                with httpx2.Client(transport=SealedTransport(identity=SIGNER.identity)) as client:
                    assert client.post(f"http://127.0.0.1:{port}/", content=b"x").status_code == 404
        finally:
            process.terminate()
            process.communicate(timeout=60)
