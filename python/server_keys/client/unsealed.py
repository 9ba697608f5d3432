"""Answers that are not sealed (keys and refusals): how much of them is read, and what proxies may have changed."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from server_keys._sealing.protocol import KEY_MISMATCH_PROBLEM

if TYPE_CHECKING:
    import httpx2 as http

# The longest key configuration or problem that is read, compressed or not. A hostile one may have no end.
MOST_UNSEALED_BYTES = 64 * 1024


class CannotDecodeError(ValueError):
    """A body has a content coding that is not known, or is broken."""


def media_type(content_type: str | None) -> str | None:
    """Return the media type in a `Content-Type`, without parameters and in lower case (RFC 9110, section 8.3.1)."""
    return content_type and content_type.partition(";")[0].strip().lower()


def decoded(body: bytes, headers: http.Headers) -> bytes:
    """Return a body without its content coding, up to `MOST_UNSEALED_BYTES`.

    Args:
        body: the body as it was transferred.
        headers: the headers of the response that it belongs to.

    Raises:
        CannotDecodeError: the coding is neither gzip nor deflate, or the body does not have it.
    """
    coding = headers.get("Content-Encoding", "identity").strip().lower()
    if coding == "identity":
        return body
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise CannotDecodeError(f"its Content-Encoding is {coding!r}, but 'identity' was asked for")
    try:
        # zlib tells the two apart by their headers, and gives out no more than is asked for: this may be a bomb.
        return zlib.decompressobj(wbits=32 + zlib.MAX_WBITS).decompress(body, MOST_UNSEALED_BYTES)
    except zlib.error as error:
        raise CannotDecodeError(f"it is not {coding}: {error}") from None


def is_key_mismatch(response: http.Response, body: bytes) -> bool:
    """Return whether `body` is the problem (RFC 9457) by which a server refuses a key.

    Proxies may have given it another media type, or compressed it.
    """
    try:
        problem = json.loads(decoded(body, response.headers))
    except (ValueError, RecursionError):
        return False
    return isinstance(problem, dict) and problem.get("type") == KEY_MISMATCH_PROBLEM
