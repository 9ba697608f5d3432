"""Refusals in the middle of an upload, on the servers, HTTP versions, clients and proxies that people use.

Each client gets the answer, not a broken connection. The clients are plain ones: a sealing transport would try again.
"""

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from server_keys._native import RequestSealer
from tests.helpers.server_processes import SERVER_KINDS, ServerKind, free_port, has_nginx, nginx, serving

APP = "tests.helpers.refusing_app:app"
KEY_PATH = "/.well-known/hpke-keys"
KIB, MIB = 1024, 1024 * 1024

over_http1 = pytest.mark.parametrize(
    "server", [kind for kind in SERVER_KINDS if not kind.http2], indirect=True, ids=str
)

needs_nginx = pytest.mark.skipif(not has_nginx(), reason="nginx is missing: install it, `apt-get install nginx-light`")


@dataclass(frozen=True)
class Refused:
    """A request that is refused, with the answer that a client must see."""

    name: str
    status: int
    says: str
    body: bytes
    method: str = "POST"
    path: str = "/length"
    headers: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return f"{self.name} of {len(self.body)} bytes"


def plaintext(size: int) -> Refused:
    return Refused("plaintext", 400, "EHBP only", bytes(size))


def sealed_to_another_key(size: int) -> Refused:
    sealer = RequestSealer(bytes.fromhex("09" + "00" * 31))
    headers = (("Ehbp-Encapsulated-Key", sealer.encapsulated_key.hex()),)
    frame = 64 * KIB
    body = b"".join(sealer.seal(bytes(min(frame, size - start))) for start in range(0, size, frame))
    return Refused("sealed to another key", 422, "urn:ietf:params:ehbp:error:key-config", body, headers=headers)


def with_a_malformed_header(size: int) -> Refused:
    return Refused("malformed header", 400, "malformed", bytes(size), headers=(("Ehbp-Encapsulated-Key", "no"),))


def with_a_frame_that_is_too_large(size: int) -> Refused:
    headers = (("Ehbp-Encapsulated-Key", "ab" * 32),)
    return Refused("frame too large", 413, "smaller frames", b"\xff" * size, headers=headers)


def posted_to_the_key(size: int) -> Refused:
    return Refused("posted to the key", 405, "Method Not Allowed", bytes(size), path=KEY_PATH)


def with_a_body_to_get_the_key(size: int) -> Refused:
    return Refused("with a body to get the key", 200, "", bytes(size), "GET", KEY_PATH)


def broken_after_its_first_frame(size: int, public_key: bytes) -> Refused:
    sealer = RequestSealer(public_key)
    headers = (("Ehbp-Encapsulated-Key", sealer.encapsulated_key.hex()),)
    return Refused("broken", 400, "malformed", sealer.seal(b"good") + b"\0\0\0\x20" + bytes(size), headers=headers)


REFUSED = [
    *(sealed_to_another_key(size) for size in (1 * KIB, 100 * KIB, 1 * MIB, 4 * MIB, 16 * MIB)),
    *(plaintext(size) for size in (1 * KIB, 100 * KIB, 4 * MIB, 16 * MIB)),
    with_a_malformed_header(4 * MIB),
    with_a_frame_that_is_too_large(4 * MIB),
    posted_to_the_key(4 * MIB),
    with_a_body_to_get_the_key(4 * MIB),
]


def failures_of(url: str, refused: list[Refused], client: str, *, http2: bool) -> list[str]:
    """Send each request twice by a `client` (sync or async) and return those whose answer did not arrive."""
    failures: list[str] = []

    def check(request: Refused, response: httpx2.Response | httpx2.TransportError) -> None:
        if isinstance(response, httpx2.TransportError):
            failures.append(f"{request}: {response!r}")
        elif response.status_code != request.status or request.says not in response.text:
            failures.append(f"{request}: {response.status_code} {response.text[:100]}")

    def send_all() -> None:
        with httpx2.Client(base_url=url, http1=not http2, http2=http2, timeout=30) as http:
            for request in refused * 2:
                try:
                    response = http.request(request.method, request.path, content=request.body, headers=request.headers)
                except httpx2.TransportError as error:
                    check(request, error)
                else:
                    check(request, response)

    async def send_all_async() -> None:
        async with httpx2.AsyncClient(base_url=url, http1=not http2, http2=http2, timeout=30) as http:
            for request in refused * 2:
                try:
                    response = await http.request(
                        request.method, request.path, content=request.body, headers=request.headers
                    )
                except httpx2.TransportError as error:
                    check(request, error)
                else:
                    check(request, response)

    if client == "sync":
        send_all()
    else:
        asyncio.run(send_all_async())
    return failures


def public_key(url: str, *, http2: bool = False) -> bytes:
    with httpx2.Client(base_url=url, http1=not http2, http2=http2) as http:
        return http.get(KEY_PATH).content[3:35]


@pytest.fixture(scope="module", params=SERVER_KINDS, ids=str)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ServerKind, int]]:
    """A server of each kind, and its port."""
    kind: ServerKind = request.param
    with serving(kind, APP, tmp_path_factory.mktemp("server") / "log") as port:
        yield kind, port


@pytest.mark.parametrize("client", ["sync", "async"])
def test_every_client_gets_the_answer(server: tuple[ServerKind, int], client: str) -> None:
    kind, port = server
    url = f"http://127.0.0.1:{port}"
    broken = broken_after_its_first_frame(4 * MIB, public_key(url, http2=kind.http2))
    assert failures_of(url, [*REFUSED, broken], client, http2=kind.http2) == []


@needs_nginx
@over_http1  # nginx speaks nothing else to servers
@pytest.mark.parametrize(
    "to_the_server", ["", 'proxy_http_version 1.1; proxy_set_header Connection "";'], ids=["HTTP/1.0", "HTTP/1.1"]
)
def test_through_nginx_every_client_gets_the_answer(
    server: tuple[ServerKind, int], to_the_server: str, tmp_path: Path
) -> None:
    _, upstream = server
    port = free_port()
    location = f"location / {{ proxy_pass http://127.0.0.1:{upstream}; {to_the_server} }}"
    http = f"server {{ listen 127.0.0.1:{port}; client_max_body_size 32m; {location} }}"
    with nginx(tmp_path, http, port):
        url = f"http://127.0.0.1:{port}"
        broken = broken_after_its_first_frame(4 * MIB, public_key(url))
        for client in ("sync", "async"):
            assert failures_of(url, [*REFUSED, broken], client, http2=False) == []


@over_http1  # HTTP/2 has no word for it
def test_a_body_that_is_too_long_to_be_read_ends_the_connection_after_the_answer(
    server: tuple[ServerKind, int],
) -> None:
    _, port = server
    # 64 MiB are read before the answer and as much after it. A client that reads after a failed write sees the answer.
    # anyio, on which httpx's async clients run, reads nothing after a failed write.
    with httpx2.Client(timeout=30) as http:
        response = http.post(f"http://127.0.0.1:{port}/length", content=bytes(136 * MIB))
    assert response.status_code == 400
    assert "EHBP only" in response.text
    assert response.headers["connection"] == "close"


@over_http1  # where clients wait
@pytest.mark.parametrize(
    "refused", [plaintext(0), with_a_malformed_header(0), posted_to_the_key(0)], ids=lambda refused: refused.name
)
def test_a_client_that_waits_for_a_continue_is_not_made_to_upload(
    server: tuple[ServerKind, int], refused: Refused
) -> None:
    kind, port = server
    lines = [f"POST {refused.path} HTTP/1.1", "Host: x", "Content-Length: 1000000", "Expect: 100-continue"]
    lines += [f"{name}: {value}" for name, value in refused.headers]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b""
        while refused.says.encode() not in answer:
            answer += (piece := connection.recv(65536))
            assert piece, answer
    if kind.module == "hypercorn":  # it sends a 100 before it calls any app
        answer = answer.split(b"\r\n\r\n", 1)[1]
    assert answer.startswith(b"HTTP/1.1 %d" % refused.status)
    assert b"connection: close" in answer.lower()
