"""Requests as bytes that are ready to be sent, over connections that stay, so that sending many costs little."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

_PATIENCE_S = 60.0


def prepared(path: str, body: bytes, encapsulated_key: str | None = None) -> bytes:
    """Return a POST request."""
    sealed = f"Ehbp-Encapsulated-Key: {encapsulated_key}\r\n" if encapsulated_key else ""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{sealed}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass(frozen=True)
class Wire:
    """A connection to a server, which answers one request after the other."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def to(cls, port: int) -> "Wire":
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    def send(self, request: bytes) -> None:
        self.writer.write(request)

    async def answer(self) -> tuple[int, bytes]:
        """Return the status and the body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        fields = dict(line.split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
        body = b""
        if fields.get(b"transfer-encoding") == b"chunked":
            while chunk_bytes := int(await self.reader.readline(), 16):
                body += (await self.reader.readexactly(chunk_bytes + 2))[:-2]
            await self.reader.readline()
        else:
            body = await self.reader.readexactly(int(fields.get(b"content-length", b"0")))
        return int(head[9:12]), body

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def wires_to_each(port: int, workers: Collection[int], count: int) -> dict[int, list[Wire]]:
    """Return so many connections to each worker of a server, whose path `/block` tells which one answers."""
    wires: dict[int, list[Wire]] = {worker: [] for worker in workers}
    until = time.monotonic() + _PATIENCE_S
    while any(len(found) < count for found in wires.values()):
        assert time.monotonic() < until, "a worker takes no connections"
        new = [await Wire.to(port) for _ in range(2 * count)]
        for wire in new:
            wire.send(prepared("/block", b"0.01"))  # Meanwhile the others accept the next connections.
        for wire in new:
            status, worker = await wire.answer()
            assert status == 200
            if len(wires[int(worker)]) < count:
                wires[int(worker)].append(wire)
            else:
                await wire.close()
    return wires
