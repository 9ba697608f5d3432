"""A proxy for TCP on a port of its own: it keeps every byte, and a test may cut it."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator


class TcpProxy:
    """Passes connections on to a port of 127.0.0.1."""

    def __init__(self, target: int) -> None:
        self.sent: list[bytearray] = []
        """What clients sent, one entry a connection."""
        self.answered: list[bytearray] = []
        """What the target answered, one entry a connection."""
        self._target = target
        self._is_cut = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def cut(self) -> None:
        """End all connections, and let no new one live."""
        with self._lock:
            self._is_cut = True
            for connection in self._open:
                _shut(connection)

    def heal(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    @property
    def recording(self) -> bytes:
        """Every byte that passed, in both directions."""
        with self._lock:
            return b"\n".join(bytes(each) for each in (*self.sent, *self.answered))

    def close(self) -> None:
        self.cut()
        _shut(self._listener)
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            server = None if self._is_cut else self._connected()
            if server is None:
                client.close()
                return
            self._open |= {client, server}
            self.sent.append(bytearray())
            self.answered.append(bytearray())
            self._start(self._pass_on, client, server, self.sent[-1], self.answered[-1])

    def _connected(self) -> socket.socket | None:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", self._target))
        return None

    def _pass_on(self, client: socket.socket, server: socket.socket, sent: bytearray, answered: bytearray) -> None:
        with client, server, selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ, (server, sent))
            selector.register(server, selectors.EVENT_READ, (client, answered))
            with contextlib.suppress(OSError):
                while all(self._passed(key) for key, _ in selector.select()):
                    pass
            with self._lock:
                self._open -= {client, server}

    def _passed(self, key: selectors.SelectorKey) -> bool:
        source: socket.socket = key.fileobj  # type: ignore[assignment]
        target, kept = key.data
        piece = source.recv(65536)
        with self._lock:
            kept += piece
        target.sendall(piece)
        return bool(piece)

    def _start(self, function: object, *arguments: object) -> None:
        thread = threading.Thread(target=function, args=arguments, name="tcp proxy")  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


@contextlib.contextmanager
def tcp_proxy(target: int) -> Iterator[TcpProxy]:
    """Run a proxy before a port of 127.0.0.1."""
    proxy = TcpProxy(target)
    try:
        yield proxy
    finally:
        proxy.close()


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
