"""Which headers a proxy passes on: those that speak to the other end, and not to the next hop (RFC 9110, 7.6.1)."""

import re
from collections.abc import Iterable

from server_keys.proxy.upstream import Upstream

RawHeaders = list[tuple[bytes, bytes]]

_OF_THIS_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# The server that a proxy runs on answers `Expect`, each hop has a `Host`, and frames the body anew.
_SET_ANEW = frozenset({b"content-length", b"expect", b"host"})
# Only the sealing itself sets and reads these.
_OF_THE_SEAL = b"ehbp-"
_VIA = b"1.1 server-keys"
_STATUSES_WITHOUT_BODY = frozenset({204, 304})
# Where a client goes next. The upstream knows itself by another name than its clients know this proxy.
_PLACES = (b"location", b"content-location")
# What no server sends on: control characters, of which some parsers let a few pass.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def of_request(headers: RawHeaders, host: bytes) -> RawHeaders:
    """Return the headers with which a request is passed on to `host`."""
    passed = [(b"host", host), *_end_to_end(headers)]
    via = [value for name, value in headers if name == b"via"]
    passed = [header for header in passed if header[0] != b"via"]
    passed.append((b"via", b", ".join([*via, _VIA])))
    return [*passed, *_framing(headers)]


def of_response(status: int, headers: Iterable[tuple[bytes, bytes]], upstream: Upstream) -> RawHeaders:
    """Return the headers with which a response is passed on.

    A URL of the upstream itself becomes a path: whoever follows it stays with the proxy, and with the sealing.

    Args:
        status: the response's.
        headers: the upstream's.
        upstream: the upstream.

    Raises:
        ValueError: the response cannot be passed on as it is.
    """
    if not 200 <= status < 600:
        raise ValueError(f"its status is {status}")
    lower = [(name.lower(), value) for name, value in headers]
    if any(_CONTROL.search(name + value) for name, value in lower):
        raise ValueError("its headers have control characters")
    lengths = [header for header in lower if header[0] == b"content-length"]
    is_framed = status not in _STATUSES_WITHOUT_BODY and not any(name == b"transfer-encoding" for name, _ in lower)
    passed = [(name, _placed(value, upstream) if name in _PLACES else value) for name, value in _end_to_end(lower)]
    return [*passed, *(lengths[:1] if is_framed else [])]


def has_body(headers: RawHeaders) -> bool:
    """Return whether a request announces a body."""
    framing = _framing(headers)
    return bool(framing) and framing != [(b"content-length", b"0")]


def declared_length(headers: RawHeaders) -> int | None:
    """Return the length of a body, where the headers tell it."""
    return next((int(value) for name, value in headers if name == b"content-length"), None)


def values_of(headers: RawHeaders, name: bytes) -> list[str]:
    """Return the values of the headers called `name`, which is in lower case."""
    return [value.decode("latin-1") for key, value in headers if key == name]


def _placed(location: bytes, upstream: Upstream) -> bytes:
    path = upstream.path_of(location.decode("latin-1"))
    return location if path is None else path.encode("latin-1")


def _framing(headers: RawHeaders) -> RawHeaders:
    """Return the header that ends the body of a request: chunks count where there are both (RFC 9112, 6.3)."""
    if any(name == b"transfer-encoding" for name, _ in headers):
        return [(b"transfer-encoding", b"chunked")]
    return [header for header in headers if header[0] == b"content-length"][:1]


def _end_to_end(headers: RawHeaders) -> RawHeaders:
    named = {token.strip().lower() for name, value in headers if name == b"connection" for token in value.split(b",")}
    left_out = _OF_THIS_HOP | _SET_ANEW | named
    return [header for header in headers if header[0] not in left_out and not header[0].startswith(_OF_THE_SEAL)]
