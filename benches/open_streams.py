"""Many streams of one server, read at the same time."""

import asyncio
import http.client
import resource
import time
from contextlib import closing
from typing import Final

from benches.whole_server import EVENT
from server_keys._native import RequestSealer

_OVERHEAD_BYTES: Final = 20


def allow_many_connections(count: int) -> None:
    """Raise the limit of open files as far as `count` connections need, for this process and those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 200)), hard))


class OpenStreams:
    """The streams of a server.

    Args:
        url: the server's.
        sealed: whether requests are sealed. What comes back is counted, and not opened: the server is measured.
    """

    def __init__(self, url: str, *, sealed: bool) -> None:
        self._host, port = url.removeprefix("http://").split(":")
        self._port = int(port)
        self._sealed = sealed

    def read_all(self, count: int, events: int) -> float:
        """Read `count` streams of `events` events each. Return how long it took once all were connected, in seconds."""
        return asyncio.run(self._read_all(count, events))

    async def _read_all(self, count: int, events: int) -> float:
        event_bytes = len(EVENT) + (_OVERHEAD_BYTES if self._sealed else 0)
        # Chunked transfer coding: a length in hex and two line ends for each event, and five bytes at the end.
        length = events * (event_bytes + len(f"{event_bytes:x}") + 4) + 5
        loop = asyncio.get_running_loop()
        readers: list[_Reader] = []
        for request in self._requests(count, events):
            _, reader = await loop.create_connection(lambda: _Reader(length), self._host, self._port)
            readers.append(reader)
            reader.request = request
        began = time.perf_counter()
        for reader in readers:
            reader.send()
        await asyncio.gather(*(reader.has_all for reader in readers))
        took_s = time.perf_counter() - began
        for reader in readers:
            reader.close()
        return took_s

    def _requests(self, count: int, events: int) -> list[bytes]:
        if not self._sealed:
            return [_request(events, b"{}")] * count
        with closing(http.client.HTTPConnection(self._host, self._port)) as connection:
            connection.request("GET", "/.well-known/hpke-keys")
            public_key = connection.getresponse().read()[3:35]
        sealers = [RequestSealer(public_key) for _ in range(count)]
        return [
            _request(events, sealer.seal(b"{}"), f"Ehbp-Encapsulated-Key: {sealer.encapsulated_key.hex()}\r\n")
            for sealer in sealers
        ]


def _request(events: int, body: bytes, more_headers: str = "") -> bytes:
    head = f"POST /events/{events} HTTP/1.1\r\nHost: localhost\r\n{more_headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class _Reader(asyncio.Protocol):
    """Counts the bytes of an answer's body."""

    def __init__(self, length: int) -> None:
        self._missing = length
        self._head = b""
        self.request = b""
        self.has_all: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def send(self) -> None:
        self._transport.write(self.request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        if not self._head.endswith(b"\r\n\r\n"):
            head, separator, data = (self._head + data).partition(b"\r\n\r\n")
            self._head = head + separator
            assert not separator or head.startswith(b"HTTP/1.1 200"), head
        self._missing -= len(data)
        if self._missing == 0:
            self.has_all.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.has_all.done():
            self.has_all.set_exception(ConnectionError(f"the stream ended {self._missing} bytes before its time"))
