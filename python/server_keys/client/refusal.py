"""An unsealed 422: whether it is the server's refusal of the key that a request was sealed to."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from server_keys._sealing.protocol import KEY_MISMATCH_PROBLEM

if TYPE_CHECKING:
    import httpx2 as http


def is_key_mismatch(response: http.Response, body: bytes, most_bytes: int) -> bool:
    """Return whether `body` is the problem (RFC 9457) by which a server refuses a key.

    Proxies may have given it another media type, or compressed it.

    Args:
        response: the response that the body belongs to.
        body: the body as it was transferred.
        most_bytes: how much of a compressed body is looked at.
    """
    try:
        if response.headers.get("Content-Encoding", "").lower() in ("gzip", "deflate"):
            # zlib tells the two apart by their headers, and gives out no more than is asked for: this may be a bomb.
            body = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS).decompress(body, most_bytes)
        problem = json.loads(body)
    except (ValueError, RecursionError, zlib.error):
        return False
    return isinstance(problem, dict) and problem.get("type") == KEY_MISMATCH_PROBLEM
