"""A thousand connections with half of a frame each: the server stays small, and serves whoever is honest."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from server_keys import KeyPair
from server_keys.client.httpx2 import SealedTransport
from tests.helpers.sealed_requests import Client, ClientV1
from tests.helpers.server_processes import ROOT, free_port

MIB = 1024 * 1024
CONNECTIONS = 1000
BOUND = 256 * MIB
# A thousand halves are four times the bound.
FRAME = 2 * MIB
MOST_GROWTH = BOUND * 1.2 + CONNECTIONS * 128 * 1024


class Server:
    """A uvicorn process."""

    def __init__(self, pid: int, port: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def resident_bytes(self) -> int:
        found = re.search(r"^VmRSS:\s+(\d+) kB", self._status.read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def half_a_frame(self, client: Client | ClientV1) -> socket.socket:
        """Return a connection on which half of a frame was sent."""
        head = "".join(f"{name}: {value}\r\n" for name, value in client.headers)
        half = FRAME.to_bytes(4, "big") + bytes(FRAME // 2)
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(
            f"POST /length HTTP/1.1\r\nHost: besieged\r\n{head}Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        connection.sendall(b"%x\r\n" % len(half) + half)
        return connection


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--ws", "none"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--log-level", "warning", "tests.helpers.besieged_app:app"], cwd=ROOT, stdout=log, stderr=log
        )
    try:
        server = Server(process.pid, port)
        until = time.monotonic() + 30
        while True:
            with contextlib.suppress(httpx2.ConnectError):
                httpx2.get(f"{server.url}/memory")
                break
            assert time.monotonic() < until, (tmp_path / "log").read_text()
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait(20)


def answered(connection: socket.socket) -> bytes:
    """Return the status of the answer that is there already, or nothing."""
    connection.settimeout(0)
    with contextlib.suppress(OSError):
        return connection.recv(12)[9:]
    return b""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells how large a process is")
@pytest.mark.parametrize("wire", ["ehbp", "v1"])
def test_a_thousand_connections_with_half_of_a_frame_each(server: Server, wire: str) -> None:
    with contextlib.ExitStack() as open_ones, httpx2.Client(transport=SealedTransport()) as honest:

        def serve_honest(length: int) -> float:
            began_at = time.monotonic()
            assert honest.post(f"{server.url}/length", content=bytes(length)).json() == length
            return time.monotonic() - began_at

        def besieger() -> Client | ClientV1:
            if wire == "ehbp":
                return Client(stranger)  # half of a frame needs no key
            return ClientV1.of_answer(keys, "POST", "/length")

        stranger, keys = KeyPair.generate(), httpx2.get(f"{server.url}/.well-known/hpke-keys").content
        serve_honest(100_000)
        idle_bytes, largest, slowest = server.resident_bytes(), 0, 0.0
        connections = []
        for number in range(CONNECTIONS):
            connections.append(open_ones.enter_context(server.half_a_frame(besieger())))
            if number % 20 == 0:
                largest = max(largest, server.resident_bytes())
            if number % 100 == 99:
                slowest = max(slowest, serve_honest(1_000_000))
        time.sleep(1)
        # Now all clients are idle, so there is room for whoever comes.
        slowest = max(slowest, serve_honest(10_000), serve_honest(1_000_000))
        serve_honest(20_000_000)
        largest = max(largest, server.resident_bytes())
        told = httpx2.get(f"{server.url}/memory").json()
        print(f"{wire}: grew by {(largest - idle_bytes) / MIB:.0f} MiB; slowest {slowest:.3f} s; {told}")
        assert largest - idle_bytes <= MOST_GROWTH
        assert slowest < 1
        assert BOUND / 2 < told["held_bytes"] <= told["most_bytes"] == BOUND
        given_up, full = told["refusals"].get("given_up", 0), told["refusals"].get("buffers_full", 0)
        assert given_up + full >= CONNECTIONS - BOUND / (FRAME / 2)
        # Those that were given up have their answer. The server may still read what others sent.
        answers = sum(answered(connection) == b"408" for connection in connections)
        assert given_up <= answers <= httpx2.get(f"{server.url}/memory").json()["refusals"]["given_up"]
    until = time.monotonic() + 10
    while httpx2.get(f"{server.url}/memory").json()["held_bytes"]:
        assert time.monotonic() < until, "what ended is still held"
        time.sleep(0.05)
    assert server.resident_bytes() - idle_bytes < BOUND / 2


def test_the_process_may_have_that_many_connections() -> None:
    assert os.sysconf("SC_OPEN_MAX") > 2 * CONNECTIONS
