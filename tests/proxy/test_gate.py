"""Who may use the client's end: programs that call it by its name, and no page of another origin."""

import asyncio
import socket

import httpx2
import pytest

from server_keys.proxy import SealOptions, seal_app
from tests.helpers import asgi
from tests.helpers.commands import Running, serving


def answer_to(port: int, request: bytes) -> bytes:
    """Send bytes as they stand, and return all that comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "LOCALHOST", "[::1]"])
def test_it_may_be_called_by_each_of_its_names(sealed: str, chain: tuple[Running, Running], name: str) -> None:
    assert httpx2.get(sealed, headers={"Host": f"{name}:{chain[0].port}"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "localhost", "localhost:1", "127.0.0.1.evil:{port}", "", "a b"]
)
def test_another_name_is_refused(sealed: str, chain: tuple[Running, Running], host: str) -> None:
    response = httpx2.post(sealed, headers={"Host": host.format(port=chain[0].port)}, content=b"x")
    assert response.status_code == 421
    assert "--name" in response.json()["message"]
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost:%d\r\nHost: localhost:%d\r\n"])
def test_there_must_be_one_host(chain: tuple[Running, Running], hosts: bytes) -> None:
    port = chain[0].port
    named = hosts % (port, port) if hosts else b""
    answer = answer_to(port, b"GET / HTTP/1.1\r\nConnection: close\r\n" + named + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_a_page_of_another_origin_is_refused(sealed: str, headers: dict[str, str]) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        response = httpx2.request(method, sealed, headers=headers)
        assert response.status_code == 403
        assert "access-control-allow-origin" not in response.headers


def test_its_own_pages_and_those_that_are_allowed_may_use_it(upstream_url: str) -> None:
    options = ("--to", upstream_url, "--listen", "127.0.0.1:0", "--allow-origin", "https://Chat.example/")
    with serving("seal", *options, "--name", "my-laptop:80") as sealed:
        for origin in (sealed.url, "https://chat.example"):
            assert httpx2.get(sealed.url, headers={"Origin": origin}).status_code == 200
        for host in ("my-laptop", "my-laptop:80"):
            assert httpx2.get(sealed.url, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "target", [b"http://127.0.0.1/x", b"http://evil.example/x", b"https://evil.example/", b"*", b"evil.example:443"]
)
@pytest.mark.parametrize("end", [0, 1], ids=["seal", "open"])
def test_only_a_path_is_a_target(chain: tuple[Running, Running], end: int, target: bytes) -> None:
    port = chain[end].port
    method = b"CONNECT" if target.endswith(b":443") else b"OPTIONS" if target == b"*" else b"GET"
    request = b"%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n" % (method, target, port)
    assert answer_to(port, request).startswith(b"HTTP/1.1 400 ")


def test_curl_that_takes_it_for_a_forward_proxy_is_refused(sealed: str) -> None:
    with httpx2.Client(proxy=sealed) as client:
        assert client.get("http://evil.example/").status_code in (400, 421)


def test_a_websocket_is_refused_too() -> None:
    app = seal_app(SealOptions(to="http://127.0.0.1:9", names=("localhost:1",)))
    for host, code in (("localhost:1", 1003), ("evil", 1008)):
        response = asyncio.run(asgi.call(app, "GET", "/", headers=[("Host", host)], type="websocket"))
        assert response.messages[0]["code"] == code
