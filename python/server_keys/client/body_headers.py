"""The headers that a sealed request and an opened response carry: none that describes the bytes of another body.

The rule and its reasons stand beside the tables in `server_keys._sealing.protocol`, for both ends.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from server_keys._sealing.protocol import NOT_OF_A_SEALED_REQUEST, NOT_OF_A_SEALED_RESPONSE

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.steps import Library

_NOT_OF_A_SEALED_REQUEST = frozenset(name.encode() for name in NOT_OF_A_SEALED_REQUEST)
# A server that sends `Content-Encoding` all the same has sealed a compressed body. The library decodes the opened one.
_NOT_OF_AN_OPENED_RESPONSE = frozenset(name.encode() for name in NOT_OF_A_SEALED_RESPONSE - {"content-encoding"})


def of_sealed_request(library: Library, headers: http.Headers) -> http.Headers:
    """Return the headers for a sealed request, from those of the caller's request."""
    return _without(_NOT_OF_A_SEALED_REQUEST, library, headers)


def of_opened_response(library: Library, headers: http.Headers) -> http.Headers:
    """Return the headers for an opened response, from those of the sealed one."""
    return _without(_NOT_OF_AN_OPENED_RESPONSE, library, headers)


def _without(names: Collection[bytes], library: Library, headers: http.Headers) -> http.Headers:
    return library.Headers([(name, value) for name, value in headers.raw if name.lower() not in names])
