"""A wire between a client and a server, with somebody who listens."""

import contextlib
import itertools
import selectors
import socket
import threading
from collections.abc import Iterator


class WireTap:
    """Relays connections to ports of this machine, in turn, and keeps a copy of all bytes in both directions."""

    def __init__(self, *ports: int) -> None:
        self._server_ports = itertools.cycle(ports)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="wire tap")]
        self._copies: list[bytearray] = []
        self._threads[0].start()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def heard(self) -> bytes:
        """All bytes that passed: for each connection those of the client, then those of the server."""
        return b"\n".join(bytes(copy) for copy in self._copies)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return sum(thread.is_alive() for thread in self._threads[1:])

    def stop(self) -> None:
        """Cut all connections."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        self._listener.settimeout(0.05)
        while not self._stopped.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                arguments = (client, next(self._server_ports))
                thread = threading.Thread(target=self._relay, args=arguments, name="wire tap")
                self._threads.append(thread)
                thread.start()

    def _relay(self, client: socket.socket, server_port: int) -> None:
        with (
            client,
            socket.create_connection(("127.0.0.1", server_port)) as server,
            selectors.DefaultSelector() as selector,
            # A peer that closes with something unread resets the connection. The OpenAI SDK does so after `[DONE]`.
            contextlib.suppress(ConnectionResetError, BrokenPipeError),
        ):
            for source, sink in ((client, server), (server, client)):
                copy = bytearray()
                self._copies.append(copy)
                selector.register(source, selectors.EVENT_READ, (sink, copy))
            while not self._stopped.is_set():
                for key, _ in selector.select(0.05):
                    sink, copy = key.data
                    piece = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not piece:
                        return
                    copy += piece
                    sink.sendall(piece)


@contextlib.contextmanager
def tapped(*ports: int) -> Iterator[WireTap]:
    """Yield a tap on the wire to `ports`, of which each connection reaches the next."""
    tap = WireTap(*ports)
    try:
        yield tap
    finally:
        tap.stop()
