"""Where a request is meant to arrive: its path and query in one form, so that both ends can compare them.

Proxies on the way decode characters that need no escape and merge slashes: nginx does both where it replaces a prefix.
Neither changes what an app sees, since apps get decoded paths. So both ends decode the path and merge its slashes
before they compare. In a query `%26` and `&` are different things: there only the escapes that RFC 3986, section 6.2.2,
calls equal are made equal.
"""

import re
from urllib.parse import quote, unquote_to_bytes

# What stands for itself in a normalised path: RFC 3986, section 3.3, `pchar` and the slash.
_PATH_SAFE = "/:@!$&'()*+,;=~-._"
_SLASHES = re.compile(rb"//+")
_ESCAPE = re.compile(rb"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def target(path: bytes, query: bytes) -> bytes:
    """Return the normalised target of a request.

    Args:
        path: the path as it is on the wire, escapes included. An empty one is `/`.
        query: what follows the question mark, as it is on the wire.
    """
    normalised = normalised_path(path)
    return normalised + b"?" + _ESCAPE.sub(_unescaped, query) if query else normalised


def normalised_path(path: bytes) -> bytes:
    """Return a path without dot segments and doubled slashes, with escapes only where they are needed."""
    decoded = _SLASHES.sub(b"/", b"/" + unquote_to_bytes(path))
    segments: list[bytes] = []
    # RFC 3986, section 5.2.4: a dot segment at the end leaves the slash before it.
    *inner, last = decoded.split(b"/")[1:]
    for segment in (*inner, last):
        if segment == b"..":
            segments = segments[:-1]
        elif segment != b".":
            segments.append(segment)
    if last in (b".", b".."):
        segments.append(b"")
    return b"/" + quote(b"/".join(segments), safe=_PATH_SAFE).encode()


def below(prefix: bytes, path: bytes) -> bytes:
    """Return what a path is below a prefix, both normalised; the path itself if it does not lie there.

    Args:
        prefix: a path without a slash at its end, or nothing.
        path: a path.
    """
    return path[len(prefix) :] if prefix and path.startswith(prefix + b"/") else path


def _unescaped(escape: re.Match[bytes]) -> bytes:
    byte = int(escape[1], 16)
    return bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte
