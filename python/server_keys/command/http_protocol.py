"""uvicorn's HTTP protocol, with what a proxy has to know and to bound: the form of a target, the length of a head."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server_keys.proxy.forwarder import TARGET

# What nginx takes by default is 32 KiB. The parser itself has no limit, and keeps what has no end.
MOST_HEAD_BYTES = 64 * 1024
_TOO_LONG = b"the request line and the headers are longer than 64 KiB\n"
_TOO_LONG_ANSWER = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\nconnection: close\r\n"
    b"content-length: %d\r\n\r\n%s" % (len(_TOO_LONG), _TOO_LONG)
)


class ProxyProtocol(HttpToolsProtocol):
    """Tells the app the request target as it came, and ends a head that has no end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._has_turned = False
        self._head_bytes = 0

    def data_received(self, data: bytes) -> None:
        """Parse what arrived."""
        self._has_turned = False
        super().data_received(data)
        # Count what is a part of one head only: other reads are no longer than the server's buffer.
        if self._in_head and not self._has_turned:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(_TOO_LONG_ANSWER)
                self.transport.close()

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._turn(in_head=True)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Give the request to the app."""
        self._turn(in_head=False)
        self.scope[TARGET] = self.url  # type: ignore[literal-required] # ASGI lets a server add keys
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request's body."""
        self._turn(in_head=True)
        super().on_message_complete()

    def _turn(self, *, in_head: bool) -> None:
        self._in_head = in_head
        self._has_turned = True
        self._head_bytes = 0
