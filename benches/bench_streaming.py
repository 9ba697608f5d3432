"""What protection costs a uvicorn server that streams small events, as an LLM server does."""

import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from benches.comparison import Comparison, Panel, Target
from benches.measure import Measure
from benches.measured import MEDIAN, P99, Estimate, Measured
from benches.stream_app import EVENT, EVENTS
from benches.units import format_seconds
from server_keys._native import RequestSealer

PLAIN: Final = "unprotected"
PROTECTED: Final = "server_keys, protected"
PLAIN_ON_UVLOOP: Final = "unprotected, on uvloop"
PROTECTED_ON_UVLOOP: Final = "server_keys, protected, on uvloop"
_UNPROTECTED: Final = {PROTECTED: PLAIN, PROTECTED_ON_UVLOOP: PLAIN_ON_UVLOOP}
_SERVERS: Final = {
    PLAIN: ("plain", "asyncio", "h11"),
    PROTECTED: ("protected", "asyncio", "h11"),
    PLAIN_ON_UVLOOP: ("plain", "uvloop", "httptools"),
    PROTECTED_ON_UVLOOP: ("protected", "uvloop", "httptools"),
}
_FRAME_BYTES: Final = len(EVENT) + 20


def _added_delay(measured: Measured) -> Estimate:
    ours, theirs = measured.time(PROTECTED, P99), measured.time(PLAIN, P99)
    return Estimate(ours.value - theirs.value, ours.low - theirs.high, ours.high - theirs.low)


STREAMING: Final = Comparison(
    title="Streaming from uvicorn",
    description=(
        f"A FastAPI app streams {EVENTS:,} events of {len(EVENT)} bytes to a client on the other core; time is that "
        "of the whole stream, divided by the events. uvicorn runs on asyncio and h11, as it comes; or on uvloop and "
        "httptools, as vLLM has it, where it is faster by itself and the same work weighs more."
    ),
    reference=_UNPROTECTED,
    speedup_title="rate against unprotected",
    targets=(
        Target(
            "Protected stream: at least 0.945 of the unprotected rate",
            lambda measured: measured.speedup(PROTECTED, PLAIN),
            at_least=0.945,
        ),
        Target(
            "Protected stream, on uvloop: at least 0.865 of the unprotected rate",
            lambda measured: measured.speedup(PROTECTED_ON_UVLOOP, PLAIN_ON_UVLOOP),
            at_least=0.865,
        ),
    ),
    panel=Panel("Streaming from uvicorn", f"time for an event of {len(EVENT)} bytes", (PROTECTED, PLAIN)),
)
DELAY: Final = Comparison(
    title="Delay of an event",
    description="How long the app waits in `send` until the server has taken an event of the same streams.",
    reference=_UNPROTECTED,
    speedup_title="unprotected p99 against this",
    quantiles={"median": MEDIAN, "p99": P99},
    speedup_fraction=P99,
    targets=(
        Target(
            "Delay that protection adds to an event: p99 at most 50 µs",
            _added_delay,
            at_most=50e-6,
            format_value=format_seconds,
        ),
    ),
)
COMPARISONS: Final = (STREAMING, DELAY)


class StreamServer:
    """A server process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "benches.stream_app", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._connection = http.client.HTTPConnection("127.0.0.1", json.loads(self._process.stdout.readline()))

    def stop(self) -> None:
        self._connection.close()
        self._process.communicate()

    def fetch(self, path: str) -> bytes:
        self._connection.request("GET", path)
        return self._connection.getresponse().read()

    def prepared_stream(self, path: str, *, sealed: bool) -> Callable[[], None]:
        """Connect, ask for the key and seal the request; return what sends it and reads the stream."""
        key_config = self.fetch("/.well-known/hpke-keys")
        if not sealed:
            return lambda: self._stream(path, b"{}", {}, len(EVENT))
        sealer = RequestSealer(key_config[3:35])
        body, headers = sealer.seal(b"{}"), {"Ehbp-Encapsulated-Key": sealer.encapsulated_key.hex()}
        return lambda: self._stream(path, body, headers, _FRAME_BYTES)

    def _stream(self, path: str, body: bytes, headers: dict[str, str], event_bytes: int) -> None:
        """Read a whole stream, without opening it: what is measured is the server."""
        self._connection.request("POST", path, body, headers)
        stream = self._connection.sock
        assert stream is not None
        head, _, received = _receive_until(stream, b"\r\n\r\n").partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        # Chunked transfer coding: a length in hex and two line ends for each event, and five bytes at the end.
        missing = EVENTS * (event_bytes + len(f"{event_bytes:x}") + 4) + 5 - len(received)
        # By hand: http.client takes longer to read an event than the server to send one.
        while missing > 0:
            missing -= len(stream.recv(65536)) or missing + 1
        assert missing == 0, f"the stream ended {missing} bytes after its time"
        # http.client believes that it has yet to read this answer.
        self._connection.close()


def _receive_until(stream: socket.socket, end: bytes) -> bytes:
    received = b""
    while end not in received:
        piece = stream.recv(65536)
        assert piece, f"the connection ended after {received!r}"
        received += piece
    return received


# New ones again and again: where a process happens to lie in memory makes it faster or slower for its whole life, by as
# much as protection costs.
@pytest.fixture(scope="module", params=range(5), ids="servers {}".format)
def servers(repetition: int) -> Iterator[dict[str, StreamServer]]:
    servers = {contestant: StreamServer(*arguments) for contestant, arguments in _SERVERS.items()}
    yield servers
    for server in servers.values():
        server.stop()


# Short turns, the contestants' after each other: how fast the kernel sends changes within seconds, and by more than
# protection costs.
@pytest.mark.parametrize("contestant", _SERVERS)
@pytest.mark.parametrize("turn", range(4))
def bench_streaming(measure: Measure, servers: dict[str, StreamServer], contestant: str, turn: int) -> None:
    # A client has the key for minutes: asking for it is no part of a stream.
    stream = servers[contestant].prepared_stream("/events", sealed=contestant in _UNPROTECTED)
    measure(STREAMING, contestant, stream, operations=EVENTS, rounds=1)


@pytest.mark.parametrize("contestant", _SERVERS)
def bench_delay(measure: Measure, servers: dict[str, StreamServer], contestant: str) -> None:
    def times_of_a_stream() -> list[float]:
        servers[contestant].prepared_stream("/timed-events", sealed=contestant in _UNPROTECTED)()
        times: list[float] = json.loads(servers[contestant].fetch("/times"))
        return times

    measure.samples(DELAY, contestant, times_of_a_stream)
