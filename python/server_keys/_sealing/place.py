"""Where a request is meant to arrive: its path and query in one form, so that both ends can compare them.

Proxies on the way decode characters that need no escape and merge slashes: nginx does both where it replaces a prefix.
Neither changes what an app sees, since apps get decoded paths. So both ends decode the path and merge its slashes
before they compare. In a query `%26` and `&` are different things: there only the escapes that RFC 3986, section 6.2.2,
calls equal are made equal.

Dot segments are the client's to remove, before it sends and before it seals. An app sees those that arrive, so somebody
who puts them into a path on the way changes what the request means: the server leaves them in. A client that sends them
seals them, too.
"""

import re
from urllib.parse import quote, unquote_to_bytes

# What stands for itself in a normalised path: RFC 3986, section 3.3, `pchar` and the slash.
_PATH_SAFE = "/:@!$&'()*+,;=~-._"
_SLASHES = re.compile("//+")
_ESCAPE = re.compile(rb"%([0-9a-fA-F]{2})")
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def target(path: bytes, query: bytes) -> bytes:
    """Return the normalised target of a request, with the dot segments that its client sends.

    Args:
        path: the path as it is on the wire, escapes included. An empty one is `/`.
        query: what follows the question mark, as it is on the wire.
    """
    return with_query(_escaped(_merged(_decoded(path))), query)


def normalised_path(path: bytes) -> bytes:
    """Return a path without dot segments and doubled slashes, with escapes only where they are needed."""
    decoded = _merged(_decoded(path))
    segments: list[str] = []
    # RFC 3986, section 5.2.4: a dot segment at the end leaves the slash before it.
    *inner, last = decoded.split("/")[1:]
    for segment in (*inner, last):
        if segment == "..":
            segments = segments[:-1]
        elif segment != ".":
            segments.append(segment)
    if last in (".", ".."):
        segments.append("")
    return _escaped("/" + "/".join(segments))


def arrived_path(decoded: str) -> bytes:
    """Return a path, which a server has decoded for its app, in the form of `normalised_path`. Dot segments stay."""
    as_text = decoded.encode(errors="surrogatepass").decode(errors="replace")  # some servers decode to surrogates
    return _escaped(_merged(as_text))


def with_query(path: bytes, query: bytes) -> bytes:
    """Return the target of a normalised path, and a query as it is on the wire."""
    return path + b"?" + _ESCAPE.sub(_unescaped, query) if query else path


def below(prefix: bytes, path: bytes) -> bytes:
    """Return what a path is below a prefix, both normalised; the path itself if it does not lie there.

    Args:
        prefix: a path without a slash at its end, or nothing.
        path: a path.
    """
    return path[len(prefix) :] if prefix and path.startswith(prefix + b"/") else path


def _decoded(path: bytes) -> str:
    # Servers hand their apps text, in which U+FFFD stands for what is no UTF-8.
    return unquote_to_bytes(path).decode(errors="replace")


def _merged(decoded: str) -> str:
    return _SLASHES.sub("/", f"/{decoded}")


def _escaped(path: str) -> bytes:
    return quote(path, safe=_PATH_SAFE).encode()


def _unescaped(escape: re.Match[bytes]) -> bytes:
    byte = int(escape[1], 16)
    return bytes([byte]) if byte in _UNRESERVED else b"%%%02X" % byte
