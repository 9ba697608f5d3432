"""The headers that a sealed request and an opened response carry: none that describes the bytes of another body.

The rule and its reasons stand beside the tables in `server_keys._sealing.protocol`, for both ends. They are
read and made as pairs of bytes: for a look-up by name the libraries decode all headers of a message first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server_keys._sealing.protocol import ENCAPSULATED_KEY_HEADER, NOT_OF_A_SEALED_REQUEST, NOT_OF_A_SEALED_RESPONSE

if TYPE_CHECKING:
    import httpx2 as http

_ENCAPSULATED_KEY_HEADER = ENCAPSULATED_KEY_HEADER.encode()
_REPLACED_IN_A_REQUEST = frozenset(
    name.encode() for name in NOT_OF_A_SEALED_REQUEST | {ENCAPSULATED_KEY_HEADER.lower()}
)
# A server that sends `Content-Encoding` all the same has sealed a compressed body. The library decodes the opened one.
_NOT_OF_AN_OPENED_RESPONSE = frozenset(name.encode() for name in NOT_OF_A_SEALED_RESPONSE - {"content-encoding"})

_FRAMING = (b"content-length", b"transfer-encoding")

RawHeaders = list[tuple[bytes, bytes]]
Framing = tuple[bytes, bytes]


def values_of(headers: http.Headers, name: bytes) -> list[str]:
    """Return the values of the headers called `name`, which is in lower case."""
    return [value.decode("latin-1") for key, value in headers.raw if key.lower() == name]


def of_sealed_request(headers: http.Headers, encapsulated_key: bytes, framing: Framing | None) -> RawHeaders:
    """Return the headers for a sealed request, from those of the caller's request.

    Args:
        headers: the caller's.
        encapsulated_key: the value of the header that says what opens it.
        framing: the header that delimits its body, or None if it has neither a body nor such a header.
    """
    sealed = [(name, value) for name, value in headers.raw if name.lower() not in _REPLACED_IN_A_REQUEST]
    sealed.append((_ENCAPSULATED_KEY_HEADER, encapsulated_key))
    # Sealed bytes do not shrink, and a proxy that compressed them would leave nothing to open.
    sealed.append((b"Accept-Encoding", b"identity"))
    if framing is not None:
        sealed.append(framing)
    return sealed


def framing_of(length: int | None) -> Framing:
    """Return the header that delimits a body of `length` bytes, or one of unknown length."""
    return (b"Transfer-Encoding", b"chunked") if length is None else (b"Content-Length", b"%d" % length)


def delimits_a_body(headers: http.Headers) -> bool:
    """Return whether a request's headers delimit a body, be it an empty one."""
    return any(name.lower() in _FRAMING for name, _ in headers.raw)


def of_opened_response(headers: http.Headers) -> RawHeaders:
    """Return the headers for an opened response, from those of the sealed one."""
    return [(name, value) for name, value in headers.raw if name.lower() not in _NOT_OF_AN_OPENED_RESPONSE]
