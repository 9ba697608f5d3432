"""An HTTP proxy on a port of its own that keeps all it reads."""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit


class Recorded(NamedTuple):
    """A request that passed."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes


class RecordingProxy:
    """Passes requests on, and keeps them and the answers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Recorded] = []
        self.answers: list[bytes] = []

    @property
    def read(self) -> bytes:
        """All bodies that passed, in both directions."""
        return b"\n".join([*(request.body for request in self.requests), *self.answers])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: RecordingProxy

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.proxy.requests.append(Recorded(self.command, self.path, dict(self.headers), body))
        target = urlsplit(self.path)
        connection = http.client.HTTPConnection(target.netloc, timeout=10)
        with contextlib.closing(connection):
            headers = {name: value for name, value in self.headers.items() if not name.lower().startswith("proxy-")}
            connection.request(self.command, target.path or "/", body, headers)
            answer = connection.getresponse()
            content = answer.read()
        self.proxy.answers.append(content)
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _pass_on  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@contextlib.contextmanager
def recording_proxy() -> Iterator[RecordingProxy]:
    """Run a proxy and yield it."""

    class Handler(_Handler):
        pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.proxy = RecordingProxy(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="recording proxy")
        thread.start()
        try:
            yield Handler.proxy
        finally:
            server.shutdown()
            thread.join()
