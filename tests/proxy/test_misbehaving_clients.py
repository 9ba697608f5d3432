"""Clients that send too much, too little, or several requests at once."""

import json
import socket
import time

import httpx2
import pytest

from tests.helpers.commands import Running
from tests.helpers.upstream_app import Upstream


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def until_end(connection: socket.socket) -> bytes:
    answer = b""
    while piece := connection.recv(65536):
        answer += piece
    return answer


@pytest.mark.parametrize("piece", [b"X-%d: " + b"x" * 1000 + b"\r\n", b"x" * 1000 + b"%.0d"], ids=["many", "one"])
@pytest.mark.parametrize("end", [0, 1], ids=["seal", "open"])
def test_a_head_without_an_end_is_cut_off(chain: tuple[Running, Running], end: int, piece: bytes) -> None:
    before = chain[end].resident_mib
    with connected(chain[end].port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
        with pytest.raises(ConnectionError):
            connection.sendall(b"".join(piece % number for number in range(1 << 14)))
    assert chain[end].resident_mib - before < 16
    assert httpx2.get(chain[0].url).status_code == 200


def test_a_head_that_is_too_long_is_told_so(chain: tuple[Running, Running]) -> None:
    with connected(chain[0].port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        time.sleep(0.1)  # what begins a head is not counted
        connection.sendall(b"X: " + b"x" * 64 * 1024)
        assert until_end(connection).startswith(b"HTTP/1.1 431 ")


def test_long_bodies_and_many_requests_on_one_connection_are_no_long_heads(sealed: str) -> None:
    with httpx2.Client() as client:
        for _ in range(100):
            assert client.post(f"{sealed}/length", content=b"x" * 10_000, headers={"X": "x" * 10_000}).is_success


def test_pipelined_requests_are_answered_in_their_order(chain: tuple[Running, Running]) -> None:
    port = chain[0].port
    request = b"POST /%d HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 4\r\n%s\r\nbody"
    with connected(port) as connection:
        connection.sendall(b"".join(request % (number, port, b"") for number in range(5)))
        connection.sendall(request % (5, port, b"Connection: close\r\n"))
        answers = until_end(connection)
    targets = [json.loads(line)["target"] for line in answers.splitlines() if line.startswith(b"{")]
    assert targets == [f"/{number}" for number in range(6)]


@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: -4\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
    ],
)
@pytest.mark.parametrize("end", [0, 1], ids=["seal", "open"])
def test_a_body_whose_end_is_in_doubt_is_refused(chain: tuple[Running, Running], end: int, framing: bytes) -> None:
    port = chain[end].port
    with connected(port) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: localhost:%d\r\n%s\r\n0\r\n\r\nGET /smuggled" % (port, framing))
        connection.shutdown(socket.SHUT_WR)
        answer = until_end(connection)
    assert not answer or answer.startswith(b"HTTP/1.1 400 ")
    assert b"smuggled" not in answer


def test_half_a_body_is_no_whole_one(chain: tuple[Running, Running], upstream_app: Upstream) -> None:
    port = chain[0].port
    before = upstream_app.received_bytes
    with connected(port) as connection:
        connection.sendall(b"POST /half HTTP/1.1\r\nHost: localhost:%d\r\nContent-Length: 100\r\n\r\nhalf" % port)
    time.sleep(0.2)
    assert upstream_app.received_bytes == before
    assert "Traceback" not in chain[0].log + chain[1].log


def test_a_client_that_waits_for_continue_gets_it(chain: tuple[Running, Running]) -> None:
    port = chain[0].port
    with connected(port) as connection:
        connection.sendall(
            b"POST /echo HTTP/1.1\r\nHost: localhost:%d\r\nExpect: 100-continue\r\nContent-Length: 4\r\n"
            b"Connection: close\r\n\r\n" % port
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"body")
        answer = until_end(connection)
    told = json.loads(answer.partition(b"\r\n\r\n")[2].splitlines()[1])
    assert told["body"] == "body"
    assert "expect" not in dict(told["headers"])
