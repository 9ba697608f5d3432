"""The headers that describe the bytes of a body. A sealed body has other bytes than its plaintext.

They are left out of what is sealed and of what is opened: a length or digest of the plaintext would tell of it, and one
of the sealed body is wrong for the reader of the plaintext. The headers that say how to read the content
(`Content-Type`, `Content-Encoding`, `Content-Language`) stay: they speak of the plaintext, and the reader needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.steps import Library

# RFC 9110, section 8.6; RFC 9112, section 6.1; RFC 9530 and RFC 3230, which it replaces; RFC 1864.
_OF_BYTES = ("Content-Length", "Transfer-Encoding", "Content-Digest", "Repr-Digest", "Digest", "Content-MD5")


def without_body_headers(library: Library, headers: http.Headers) -> http.Headers:
    """Return `headers` without those that describe the bytes of the body."""
    others = library.Headers(headers)
    for name in _OF_BYTES:
        others.pop(name, None)
    return others
