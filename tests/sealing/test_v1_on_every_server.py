"""Version 1 of the wire on the servers, the HTTP versions and the proxies that people use."""

import contextlib
import dataclasses
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from server_keys._native import MalformedMessageError, MissingEndError
from server_keys._sealing import place
from tests.helpers.sealed_requests import ClientV1
from tests.helpers.server_processes import SERVER_KINDS, ServerKind, free_port, has_nginx, nginx, serving
from tests.helpers.v1_app import EVENTS

APP = "tests.helpers.v1_app:app"
KEY_PATH = "/.well-known/hpke-keys"
UVICORN = next(kind for kind in SERVER_KINDS if kind.name == "uvicorn-httptools")
# Without chunks to nginx, which speaks HTTP/1.0 to it by default: then the end of a connection is the end of a body.
UVICORN_WITHOUT_CHUNKS = next(kind for kind in SERVER_KINDS if kind.name == "uvicorn-h11")

needs_nginx = pytest.mark.skipif(not has_nginx(), reason="nginx is missing: install it, `apt-get install nginx-light`")
over_http_1 = pytest.mark.parametrize(
    "server", [kind for kind in SERVER_KINDS if not kind.http2], ids=str, indirect=True
)


@dataclasses.dataclass
class Server:
    """A server to call: its URL, with the prefix that a proxy gives it, and how to speak to it."""

    url: str
    http2: bool = False
    kind: str = ""
    prefix: str = ""
    key_prefix: str = ""

    @contextlib.contextmanager
    def http(self) -> Iterator[httpx2.Client]:
        with httpx2.Client(base_url=self.url, http1=not self.http2, http2=self.http2, timeout=30) as client:
            yield client

    def client(self, method: str, path: str, *, has_body: bool = False) -> ClientV1:
        """Return a client that fetched the key and seals the path below the key's prefix."""
        with self.http() as http:
            answer = http.get(f"{self.key_prefix}{KEY_PATH}")
        assert answer.status_code == 200
        raw_path, _, query = f"{self.prefix}{path}".partition("?")
        sealed = place.below(self.key_prefix.encode(), place.normalised_path(raw_path.encode()))
        target = place.with_query(sealed, query.encode()).decode()
        return ClientV1.of_answer(answer.content, method, target, has_body=has_body)

    def call(
        self, method: str, path: str, *parts: bytes, client: ClientV1 | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Send a request, and return the status and what its sealed body, which is whole, becomes."""
        client = client or self.client(method, path, has_body=bool(parts))
        content = b"".join(client.seal(*parts)) if parts else None
        with self.http() as http:
            response = http.request(
                method, f"{self.prefix}{path}", content=content, headers={**dict(client.headers), **headers}
            )
        opener = client.opener(response.status_code, response.headers["Ehbp-Response-Nonce"])
        opened = opener.feed(response.content)
        opener.finish()
        return response.status_code, opened


@pytest.fixture(scope="module", params=SERVER_KINDS, ids=str)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of each kind."""
    kind: ServerKind = request.param
    with serving(kind, APP, tmp_path_factory.mktemp("server") / "log") as port:
        yield Server(f"http://127.0.0.1:{port}", kind.http2, kind.name)


def test_requests_with_and_without_a_body(server: Server) -> None:
    assert server.call("POST", "/seen/a?x=1", b"one ", b"two") == (200, b"POST a x=1 one two")
    assert server.call("GET", "/seen/a") == (200, b"GET a  ")
    assert server.call("DELETE", "/seen/a") == (200, b"DELETE a  ")
    assert server.call("PUT", "/seen/a") == (200, b"PUT a  ")
    assert server.call("POST", "/seen/a", b"x" * 200_000) == (200, b"POST a  " + b"x" * 200_000)
    assert server.call("GET", "/events") == (200, b"".join(EVENTS))


def test_answers_without_a_body(server: Server) -> None:
    assert server.call("HEAD", "/seen/a") == (200, b"")
    for method in ("GET", "HEAD"):
        assert server.call(method, "/status/204") == (204, b"")
        assert server.call(method, "/status/304") == (304, b"")
    assert server.call("HEAD", "/status/404") == (404, b"")
    assert server.call("POST", "/status/204", b"x") == (204, b"")
    # The connection goes on after each of them.
    with server.http() as http:
        for _ in range(3):
            client = server.client("HEAD", "/seen/a")
            assert http.head("/seen/a", headers=dict(client.headers)).status_code == 200


def test_statuses(server: Server) -> None:
    for status in (201, 301, 404, 418, 500):
        assert server.call("GET", f"/status/{status}") == (status, b"body")


@pytest.mark.parametrize(
    "path",
    ["/seen/~a", "/seen/%7Ea", "/seen/a%20b", "/seen/%C3%A9", "/seen/%FF", "/seen//a", "/seen/a%2Fb", "/seen/a%25b"],
)
def test_paths_that_can_be_written_in_several_ways(server: Server, path: str) -> None:
    assert server.call("GET", path)[0] == 200


def test_queries_arrive_as_they_were_sealed(server: Server) -> None:
    assert server.call("GET", "/seen/a?q=%7e%26&r=a+b")[0] == 200
    long = "x" * (4000 if server.kind == "gunicorn" else 5000)  # gunicorn takes no line above 4094 characters
    assert server.call("GET", f"/seen/a?q={long}") == (200, f"GET a q={long} ".encode())


def test_a_request_for_another_place_is_told_so_by_a_sealed_answer(server: Server) -> None:
    for method, path in (("GET", "/seen/b"), ("HEAD", "/seen/a"), ("GET", "/seen/a?x")):
        client = server.client("GET", "/seen/a")
        with server.http() as http:
            response = http.request(method, path, headers=dict(client.headers))
        assert response.status_code == 400
        if method != "HEAD":
            opener = client.opener(400, response.headers["Ehbp-Response-Nonce"])
            assert b"sealed for GET /seen/a and arrived as" in opener.feed(response.content)
            opener.finish()


def test_what_is_not_sealed(server: Server) -> None:
    with server.http() as http:
        assert http.get("/health").json() == "ok"
        assert http.options("/seen/a").status_code == 405  # the app's own answer
        for method in ("GET", "HEAD", "POST"):
            assert http.request(method, "/seen/a").status_code == 400
        assert http.head(KEY_PATH).headers["Content-Length"] == "1268"


def test_a_header_of_64_kib_is_refused(server: Server) -> None:
    ((name, value),) = server.client("GET", "/seen/a").headers
    with server.http() as http, contextlib.suppress(httpx2.TransportError):  # some servers hang up
        assert http.get("/seen/a", headers={name: value + "A" * 65536}).status_code in (400, 431)
    assert server.call("GET", "/seen/a") == (200, b"GET a  ")


def test_a_stream_that_breaks_off_is_never_whole(server: Server) -> None:
    client = server.client("GET", "/fails")
    received = b""
    with server.http() as http, http.stream("GET", "/fails", headers=dict(client.headers)) as response:
        opener = client.opener(200, response.headers["Ehbp-Response-Nonce"])
        with contextlib.suppress(httpx2.TransportError):
            for piece in response.iter_bytes():
                received += piece
    assert b"".join(EVENTS[:4]).startswith(opener.feed(received))
    with pytest.raises(MalformedMessageError):
        opener.finish()


def test_a_request_that_its_client_cut_at_a_frames_end_is_not_served(server: Server) -> None:
    client = server.client("POST", "/seen/a", has_body=True)
    with server.http() as http:
        response = http.post("/seen/a", content=client.seal(b"one", b"two")[0], headers=dict(client.headers))
    assert response.status_code == 400
    assert "Ehbp-Response-Nonce" not in response.headers


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        yield connection


def received(connection: socket.socket, until: bytes = b"") -> bytes:
    """Return what arrives until the connection ends, or until it contains `until`."""
    read = b""
    while not until or until not in read:
        piece = connection.recv(65536)
        if not piece:
            break
        read += piece
    return read


def opened(client: ClientV1, response: bytes) -> bytes:
    head, _, body = response.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    opener = client.opener(int(lines[0].split()[1]), headers["ehbp-response-nonce"])
    if headers.get("transfer-encoding") == "chunked":  # as uvicorn answers also those who speak HTTP/1.0
        chunks, body = body, b""
        while size := int(chunks[: (at := chunks.index(b"\r\n"))], 16):
            body, chunks = body + chunks[at + 2 : at + 2 + size], chunks[at + 2 + size + 2 :]
    plaintext = opener.feed(body)
    opener.finish()
    return plaintext


def request_head(client: ClientV1, path: str, version: str, *more: str) -> bytes:
    ((name, value),) = client.headers
    return "\r\n".join(
        [f"{client.method} {path} HTTP/{version}", "Host: x", f"{name}: {value}", *more, "", ""]
    ).encode()


@over_http_1
@pytest.mark.parametrize("path", ["/seen/a", "/events"])
def test_over_http_1_0(server: Server, path: str) -> None:
    client = server.client("GET", path)
    with connected(server) as connection:
        connection.sendall(request_head(client, path, "1.0"))
        answer = received(connection)
    assert opened(client, answer) in (b"GET a  ", b"".join(EVENTS))


@over_http_1
def test_a_client_that_waits_for_a_continue(server: Server) -> None:
    client = server.client("POST", "/seen/a", has_body=True)
    body = b"".join(client.seal(b"waited"))
    more = ("Expect: 100-continue", f"Content-Length: {len(body)}", "Connection: close")
    with connected(server) as connection:
        connection.sendall(request_head(client, "/seen/a", "1.1", *more))
        assert b" 100 " in received(connection, until=b"\r\n\r\n")
        connection.sendall(body)
        answer = received(connection)
    assert opened(client, answer) == b"POST a  waited"
    # One who sealed to another place is answered instead.
    client = server.client("POST", "/seen/a", has_body=True)
    with connected(server) as connection:
        connection.sendall(request_head(client, "/seen/b", "1.1", *more))
        answer = received(connection)
    # Hypercorn tells every client to go on, before its app has the request.
    assert re.sub(rb"^HTTP/1.1 100 .*?\r\n\r\n", b"", answer, flags=re.DOTALL).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("options", [(), ("--root-path", "/team-a")], ids=["plain", "with a root path"])
@pytest.mark.parametrize("key_prefix", ["/team-a", ""])
@needs_nginx
def test_behind_a_proxy_that_takes_a_prefix_away(tmp_path: Path, key_prefix: str, options: tuple[str, ...]) -> None:
    kind = dataclasses.replace(UVICORN, options=(*UVICORN.options, *options))
    with serving(kind, APP, tmp_path / "log") as port:
        through = free_port()
        configuration = (
            f"server {{ listen 127.0.0.1:{through}; location /team-a/ {{ proxy_pass http://127.0.0.1:{port}/; }} "
            f"location = {KEY_PATH} {{ proxy_pass http://127.0.0.1:{port}; }} }}"
        )
        with nginx(tmp_path, configuration, through):
            server = Server(f"http://127.0.0.1:{through}", prefix="/team-a", key_prefix=key_prefix)
            if not key_prefix and not options:
                # The client cannot know that the prefix is taken away, and nobody told the server of it.
                assert server.call("GET", "/seen/a")[0] == 400
                return
            assert server.call("POST", "/seen/a?q=1", b"x") == (200, b"POST a q=1 x")
            for path in ("/seen/%7Ea", "/seen//a", "/seen/a%2Fb", "/seen/%C3%A9", "/seen/a%20b", "/seen/x/../a"):
                assert server.call("GET", path)[0] == 200
            assert server.call("HEAD", "/seen/a") == (200, b"")
            assert server.call("GET", "/status/304") == (304, b"")
            assert server.call("GET", "/events") == (200, b"".join(EVENTS))


@needs_nginx
def test_a_prefix_that_is_taken_away_unbeknown_to_all_needs_a_suffix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V1_APP_PLACE", "suffix")
    with serving(UVICORN, APP, tmp_path / "log") as port:
        through = free_port()
        configuration = (
            f"server {{ listen 127.0.0.1:{through}; location /team-a/ {{ proxy_pass http://127.0.0.1:{port}/; }} "
            f"location = {KEY_PATH} {{ proxy_pass http://127.0.0.1:{port}; }} }}"
        )
        with nginx(tmp_path, configuration, through):
            server = Server(f"http://127.0.0.1:{through}", prefix="/team-a")
            assert server.call("POST", "/seen/a?q=1", b"x") == (200, b"POST a q=1 x")


@needs_nginx
def test_a_server_that_dies_in_the_middle_of_a_stream_is_noticed_behind_a_proxy_that_hides_it(tmp_path: Path) -> None:
    with serving(UVICORN_WITHOUT_CHUNKS, APP, tmp_path / "log") as port:
        through = free_port()
        location = f"proxy_pass http://127.0.0.1:{port};"
        configuration = f"server {{ listen 127.0.0.1:{through}; location / {{ {location} }} }}"
        with nginx(tmp_path, configuration, through):
            server = Server(f"http://127.0.0.1:{through}")
            client = server.client("GET", "/dies")
            with server.http() as http:
                response = http.get("/dies", headers=dict(client.headers))  # which takes it for whole
            opener = client.opener(200, response.headers["Ehbp-Response-Nonce"])
            assert opener.feed(response.content) == b"".join(EVENTS[:4])
            with pytest.raises(MissingEndError):
                opener.finish()


def test_websockets_pass_untouched() -> None:
    from fastapi.testclient import TestClient

    from tests.helpers.v1_app import app

    with TestClient(app) as client, client.websocket_connect("/socket") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "hello"
