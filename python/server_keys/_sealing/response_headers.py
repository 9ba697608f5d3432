"""The headers of a sealed response: what the app says of its answer, as far as it is true of a sealed body."""

from starlette.types import Message

from server_keys._sealing.protocol import NOT_OF_A_SEALED_RESPONSE, RESPONSE_NONCE_HEADER

_NONCE = RESPONSE_NONCE_HEADER.encode()
_CACHE_CONTROL = b"cache-control"
_BUFFERING = b"x-accel-buffering"
# Headers that describe the plaintext, and the nonce of another sealed response that the app relays as a gateway.
_NOT_SENT = frozenset({name.encode() for name in NOT_OF_A_SEALED_RESPONSE} | {_NONCE.lower()})


def sealed_start(start: Message, response_nonce: str, *, streams: bool, sealed_length: int | None) -> Message:
    """Return the start of the sealed response to which the app's `start` becomes.

    `Cache-Control` gets `no-transform`, beside what the app says there: whoever changes a sealed body breaks it, and
    whoever compresses it gains nothing and holds it up. `X-Accel-Buffering: no` lets nginx, and others that know it,
    pass a stream on as it comes. A whole answer has no use for that: the proxy's buffer frees the server sooner.

    Args:
        start: the app's `http.response.start`.
        response_nonce: the value of the header `Ehbp-Response-Nonce`.
        streams: whether the app may send its body over time: it did not declare the length.
        sealed_length: the length of the sealed body, where it is known.
    """
    headers = [(name, value) for name, value in start.get("headers", ()) if name.lower() not in _NOT_SENT]
    named = {name.lower() for name, _ in headers}
    if streams and _BUFFERING not in named:
        headers.append((_BUFFERING, b"no"))
    if sealed_length is not None:
        headers.append((b"content-length", b"%d" % sealed_length))
    return {
        **start,
        "headers": [
            *(header for header in headers if header[0].lower() != _CACHE_CONTROL),
            (_CACHE_CONTROL, _never_transformed(headers)),
            (_NONCE.lower(), response_nonce.encode()),
            (b"access-control-expose-headers", _NONCE),
        ],
    }


def _never_transformed(headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the app's `Cache-Control`, in one line, with `no-transform`."""
    said = [value for name, value in headers if name.lower() == _CACHE_CONTROL and value.strip()]
    directives = {directive.strip().lower() for value in said for directive in value.split(b",")}
    return b", ".join(said if b"no-transform" in directives else [*said, b"no-transform"])
