"""Upstreams that are down, slow, hostile, or break off: the client gets a clear word, and never half for a whole."""

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from server_keys.client import sealed_client
from server_keys.errors import MalformedMessageError
from server_keys.proxy import Limits, OpenOptions, open_app
from tests.helpers.commands import serving
from tests.helpers.raw_server import raw_server
from tests.helpers.server_processes import free_port
from tests.helpers.servers import STANDARD, running

HEAD = b"HTTP/1.1 200 OK\r\n"


def says(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


def never(connection: socket.socket) -> None:
    connection.recv(1 << 20)
    connection.recv(1)  # until the proxy gives up


def endless_head(connection: socket.socket) -> None:
    connection.sendall(HEAD)
    for number in range(1 << 20):  # a GiB; the proxy ends it long before
        connection.sendall(b"X-%d: " % number + b"x" * 1000 + b"\r\n")


def endless_value(connection: socket.socket) -> None:
    connection.sendall(HEAD + b"X: ")
    for _ in range(1 << 10):
        connection.sendall(bytes(1 << 20).replace(b"\0", b"x"))


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with sealed_client(timeout=20) as client:
        yield client


def answer_of(behaviour: Callable[[socket.socket], None], client: httpx2.Client) -> httpx2.Response:
    with raw_server(behaviour) as port:
        options = OpenOptions(to=f"http://127.0.0.1:{port}", share=None, limits=Limits(timeout_s=0.5))
        with running(open_app(options), STANDARD) as url:
            return client.post(url, content=b"a secret of mine")


UNUSABLE = {
    "closes at once": says(b""),
    "is no HTTP": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "an old HTTP": says(b"<html>hello</html>"),
    "ends within its head": says(HEAD + b"Content-Type: text/pl"),
    "a head without an end": endless_head,
    "a header without an end": endless_value,
    "two lengths": says(HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    "a length that is none": says(HEAD + b"Content-Length: -1\r\n\r\n"),
    "a status that is none": says(b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n"),
    "control characters": says(HEAD + b"X: a\x01b\r\nContent-Length: 0\r\n\r\n"),
    "an upgrade nobody asked for": says(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
    ),
}


@pytest.mark.parametrize("behaviour", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_answer_that_cannot_be_passed_on_is_a_502(
    behaviour: Callable[[socket.socket], None], client: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    response = answer_of(behaviour, client)
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"
    assert "upstream" in response.json()["message"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("http://127.0.0.1:")
    assert "\n" not in line
    assert "secret" not in caplog.text


def test_an_upstream_that_is_down_is_a_502(client: httpx2.Client) -> None:
    options = OpenOptions(to=f"http://127.0.0.1:{free_port()}", share=None)
    with running(open_app(options), STANDARD) as url:
        response = client.post(url, content=b"x")
    assert response.status_code == 502
    assert "is it running?" in response.json()["message"]


def test_an_upstream_that_never_answers_is_a_504(client: httpx2.Client) -> None:
    began_at = time.monotonic()
    response = answer_of(never, client)
    assert response.status_code == 504
    assert "in time" in response.json()["message"]
    assert time.monotonic() - began_at < 5


BROKEN_OFF = {
    "a length that is a lie": HEAD + b"Content-Length: 100\r\n\r\nonly this",
    "chunks without an end": HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
    "chunks that are none": HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\nzz\r\n",
    "silence in its midst": HEAD + b"Transfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
}


@pytest.mark.parametrize("name", BROKEN_OFF)
def test_an_answer_that_breaks_off_never_looks_whole(
    name: str, client: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    def behave(connection: socket.socket) -> None:
        connection.sendall(BROKEN_OFF[name])
        if name.startswith("silence"):
            connection.recv(1 << 20)
            connection.recv(1)

    with pytest.raises((httpx2.RemoteProtocolError, MalformedMessageError)):
        answer_of(behave, client)
    assert "Traceback" not in caplog.text


def test_a_plain_answer_that_breaks_off_never_looks_whole() -> None:
    with raw_server(says(BROKEN_OFF["a length that is a lie"])) as port:
        app = open_app(OpenOptions(to=f"http://127.0.0.1:{port}", share=None, required=False))
        with running(app, STANDARD) as url, pytest.raises(httpx2.RemoteProtocolError):
            httpx2.get(url)


def test_more_than_a_length_promises_is_not_passed_on(client: httpx2.Client) -> None:
    response = answer_of(says(HEAD + b"Content-Length: 4\r\n\r\nthisHTTP/1.1 200 OK\r\nX: smuggled\r\n\r\n"), client)
    assert response.content == b"this"
    assert "x" not in response.headers


def test_an_answer_that_ends_with_its_connection_is_whole(client: httpx2.Client) -> None:
    assert answer_of(says(b"HTTP/1.0 200 OK\r\n\r\nall of it"), client).content == b"all of it"


def test_requests_wait_for_a_connection_and_then_are_refused() -> None:
    limits = Limits(max_connections=1, queue_timeout_s=0.2, timeout_s=20)
    with raw_server(never) as port:
        app = open_app(OpenOptions(to=f"http://127.0.0.1:{port}", share=None, required=False, limits=limits))
        with running(app, STANDARD) as url, ThreadPoolExecutor(1) as others:
            held = others.submit(httpx2.get, url, timeout=1)
            time.sleep(0.2)
            response = httpx2.get(url, timeout=5)
            with pytest.raises(httpx2.ReadTimeout):
                held.result()
    assert response.status_code == 503
    assert "all connections" in response.json()["message"]


def test_an_upstream_may_come_back(client: httpx2.Client) -> None:
    port = free_port()
    with serving("open", "--to", f"http://127.0.0.1:{port}", "--listen", "127.0.0.1:0") as opened:
        assert client.post(opened.url, content=b"x").status_code == 502
        with raw_server(says(HEAD + b"Content-Length: 2\r\n\r\nok"), port):
            assert client.post(opened.url, content=b"x").content == b"ok"
