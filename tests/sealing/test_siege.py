"""A thousand connections with half of a frame each: the server stays small, and serves whoever is honest."""

import contextlib
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from server_keys import KeyPair
from server_keys.client.httpx2 import SealedTransport
from tests.helpers.sealed_requests import Client, ClientV1
from tests.helpers.server_processes import ROOT, free_port
from tests.helpers.servers import PLAIN, STANDARD, Stack

MIB = 1024 * 1024
CONNECTIONS = 1000
BOUND = 256 * MIB
# A thousand halves are four times the bound.
FRAME = 2 * MIB
MOST_GROWTH = BOUND * 1.2 + CONNECTIONS * 128 * 1024


class Server:
    """A uvicorn process."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid = pid
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def resident_bytes(self, *, at_most: bool = False) -> int:
        """Return how large the process is, or how large it has been at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"^{'VmHWM' if at_most else 'VmRSS'}:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    def wait_until_quiet(self) -> None:
        """Wait until everything is done that has come: the server answers, and takes hardly any processor time."""
        quiet, took_s, until = 0, self._processor_time_s(), time.monotonic() + 120
        while quiet < 5:
            assert time.monotonic() < until
            httpx2.get(f"{self.url}/memory", timeout=60)
            time.sleep(0.1)
            before_s, took_s = took_s, self._processor_time_s()
            quiet = quiet + 1 if took_s - before_s <= 0.02 else 0

    def _processor_time_s(self) -> float:
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def half_a_frame(self, client: Client | ClientV1) -> socket.socket:
        """Return a connection on which half of a frame was sent."""
        connection = self.connect()
        connection.sendall(half_a_frame(client))
        return connection


def half_a_frame(client: Client | ClientV1) -> bytes:
    """Return the beginning of a request, up to half of its frame."""
    head = "".join(f"{name}: {value}\r\n" for name, value in client.headers)
    half = FRAME.to_bytes(4, "big") + bytes(FRAME // 2)
    return (
        f"POST /length HTTP/1.1\r\nHost: besieged\r\n{head}Transfer-Encoding: chunked\r\n\r\n{FRAME:x}\r\n".encode()
        + half
    )


@pytest.fixture
def stack() -> Stack:
    """What the server runs on."""
    return STANDARD


@pytest.fixture
def server(tmp_path: Path, stack: Stack) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port), "--ws", "none"]
    command += ["--loop", stack.loop, "--http", stack.http]
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
    assert server.resident_bytes() - idle_bytes < BOUND / 4


def send_together(connections: list[socket.socket], requests: list[bytes]) -> None:
    """Send each request on its connection, all at the same time."""
    by_descriptor = {connection.fileno(): connection for connection in connections}
    with selectors.DefaultSelector() as selector:
        for connection, request in zip(connections, requests, strict=True):
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_WRITE, memoryview(request))
        while selector.get_map():
            for key, _ in selector.select(30):
                connection, rest = by_descriptor[key.fd], key.data
                try:
                    rest = rest[connection.send(rest) :]
                except BlockingIOError:
                    continue
                except OSError:  # it was refused
                    rest = b""
                if rest:
                    selector.modify(connection, selectors.EVENT_WRITE, rest)
                else:
                    selector.unregister(connection)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells how large a process is")
@pytest.mark.parametrize(("stack", "wire"), [(PLAIN, "ehbp"), (STANDARD, "ehbp"), (STANDARD, "v1")], ids=str)
def test_a_thousand_connections_that_send_halves_together(server: Server, wire: str) -> None:
    stranger, keys = KeyPair.generate(), httpx2.get(f"{server.url}/.well-known/hpke-keys").content
    served = list[float]()
    is_over = threading.Event()

    def serve_honest() -> None:
        with httpx2.Client(transport=SealedTransport(), timeout=60) as honest:
            while not is_over.is_set():
                began_at = time.monotonic()
                assert honest.post(f"{server.url}/length", content=bytes(100_000)).json() == 100_000
                served.append(time.monotonic() - began_at)

    def besieger() -> Client | ClientV1:
        return Client(stranger) if wire == "ehbp" else ClientV1.of_answer(keys, "POST", "/length")

    with contextlib.ExitStack() as open_ones, ThreadPoolExecutor(1) as pool:
        requests = [half_a_frame(besieger()) for _ in range(CONNECTIONS)]
        idle_bytes = server.resident_bytes()
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # forgets how large it has been
        connections = [open_ones.enter_context(server.connect()) for _ in range(CONNECTIONS)]
        # As much as the kernel takes is there already when the server wakes.
        os.kill(server.pid, signal.SIGSTOP)
        threading.Timer(1, os.kill, (server.pid, signal.SIGCONT)).start()
        send_together(connections, requests)
        honest = pool.submit(serve_honest)
        for _ in range(5):
            time.sleep(0.3)
            send_together(connections, [b"\0"] * CONNECTIONS)
        is_over.set()
        honest.result()
        during = max(served)
        server.wait_until_quiet()
        is_over.clear()
        served.clear()
        honest = pool.submit(serve_honest)
        time.sleep(2)
        is_over.set()
        honest.result()
        told = httpx2.get(f"{server.url}/memory", timeout=30).json()
        grew = server.resident_bytes(at_most=True) - idle_bytes
        print(
            f"{wire}: grew by {grew / MIB:.0f} MiB; honest {during:.2f} s meanwhile, {max(served):.2f} s after; {told}"
        )
        assert grew <= MOST_GROWTH
        assert max(served) < 1
        assert told["held_bytes"] <= told["most_bytes"] == BOUND
        given_up, full = told["refusals"].get("given_up", 0), told["refusals"].get("buffers_full", 0)
        assert given_up + full >= CONNECTIONS - BOUND / (FRAME / 2)
    until = time.monotonic() + 20
    while httpx2.get(f"{server.url}/memory", timeout=30).json()["held_bytes"]:
        assert time.monotonic() < until, "what ended is still held"
        time.sleep(0.05)
    assert server.resident_bytes() - idle_bytes < BOUND / 4


def test_the_process_may_have_that_many_connections() -> None:
    assert os.sysconf("SC_OPEN_MAX") > 2 * CONNECTIONS
