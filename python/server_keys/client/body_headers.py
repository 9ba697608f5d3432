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

# A server that leaves it there has sealed a compressed body: the library decodes it after it is opened.
_NOT_OF_AN_OPENED_RESPONSE = NOT_OF_A_SEALED_RESPONSE - {"content-encoding"}


def of_sealed_request(library: Library, headers: http.Headers) -> http.Headers:
    """Return the headers for a sealed request, from those of the caller's request."""
    return _without(NOT_OF_A_SEALED_REQUEST, library, headers)


def of_opened_response(library: Library, headers: http.Headers) -> http.Headers:
    """Return the headers for an opened response, from those of the sealed one."""
    return _without(_NOT_OF_AN_OPENED_RESPONSE, library, headers)


def _without(names: Collection[str], library: Library, headers: http.Headers) -> http.Headers:
    others = library.Headers(headers)
    for name in names:
        others.pop(name, None)
    return others
