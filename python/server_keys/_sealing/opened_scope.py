"""The scope of an opened request: what the server says of it, as far as it is true of an opened body."""

from starlette.types import Scope

from server_keys._sealing.protocol import NOT_OF_A_SEALED_REQUEST
from server_keys._sealing.wires import RequestWire

OPENED = "server_keys.opened"
"""True in the scope of a request that arrived sealed."""
WIRE = "server_keys.wire"
"""In the scope of such a request: `ehbp`, or `v1` if also its head was sealed."""

# ASGI extensions through which no part of a body travels. Others would go around the sealing: `http.response.pathsend`
# hands the server a file to send.
_HARMLESS_EXTENSIONS = frozenset({"http.response.trailers", "http.response.early_hint", "tls"})
_HEADERS_OF_THE_SEALED = frozenset(name.encode() for name in NOT_OF_A_SEALED_REQUEST)


def opened_scope(scope: Scope, wire: RequestWire, body_bytes: int | None) -> Scope:
    """Return the scope that the app gets.

    Args:
        scope: the server's, for the sealed request.
        wire: knows how the request is sealed.
        body_bytes: the length of the opened body; None while it is not known.
    """
    headers = [(name, value) for name, value in scope["headers"] if name not in _HEADERS_OF_THE_SEALED]
    headers.append((b"accept-encoding", b"identity"))
    if body_bytes is None:
        headers.append((b"transfer-encoding", b"chunked"))
    elif wire.has_body or any(name == b"content-length" for name, _ in scope["headers"]):
        headers.append((b"content-length", b"%d" % body_bytes))
    extensions = {name: value for name, value in scope.get("extensions", {}).items() if name in _HARMLESS_EXTENSIONS}
    return {**scope, "headers": headers, "extensions": extensions, OPENED: True, WIRE: wire.name}
