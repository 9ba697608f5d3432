"""A TCP server that answers each connection with bytes as they stand, however wrong they are."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def raw_server(answer: Callable[[socket.socket], None], port: int = 0) -> Iterator[int]:
    """Yield the port of 127.0.0.1 on which `answer` gets each connection, after a request's head has arrived.

    Args:
        answer: gets the connection.
        port: the port; any free one by default.
    """
    stopped = threading.Event()
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", port)) as listener:
        listener.settimeout(0.02)

        def serve(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(65536)
                    if not piece:
                        return
                    head += piece
                answer(connection)

        def accept() -> None:
            while not stopped.is_set():
                with contextlib.suppress(TimeoutError):
                    connection, _ = listener.accept()
                    connection.settimeout(20)
                    threads.append(threading.Thread(target=serve, args=(connection,)))
                    threads[-1].start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            accepting.join()
            for thread in threads:
                thread.join()
