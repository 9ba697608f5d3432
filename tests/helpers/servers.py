"""Real servers on a port of their own, inside the test's process."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp


@dataclass(frozen=True)
class Stack:
    """The event loop and the HTTP parser that uvicorn runs on, by uvicorn's names for them."""

    loop: str
    http: str

    def __str__(self) -> str:
        return f"{self.loop}-{self.http}"


PLAIN = Stack("asyncio", "h11")
"""The stack that `pip install uvicorn` brings."""
STANDARD = Stack("uvloop", "httptools")
"""The stack that `pip install uvicorn[standard]` brings. FastAPI's extra `standard` and vLLM bring it, too."""


@contextlib.contextmanager
def running(app: ASGIApp, stack: Stack = PLAIN) -> Iterator[str]:
    """Serve `app` with uvicorn and yield its URL, without a slash at the end."""
    # Name the protocol: only then does asyncio turn Nagle's algorithm off, which costs 40 ms for each response of two
    # packets.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="warning", lifespan="on", ws="none", loop=stack.loop, http=stack.http)
        server = uvicorn.Server(config)
        started = threading.Event()
        startup = server.startup

        async def startup_and_tell(sockets: list[socket.socket] | None = None) -> None:
            await startup(sockets)
            started.set()

        server.startup = startup_and_tell  # type: ignore[method-assign]
        thread = threading.Thread(target=server.run, args=([listener],), name="uvicorn")
        thread.start()
        try:
            assert started.wait(10), "the server did not start"
            host, port = listener.getsockname()
            yield f"http://{host}:{port}"
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive(), "the server did not stop"
