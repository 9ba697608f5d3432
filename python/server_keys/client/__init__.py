"""Transports that seal requests and open responses (EHBP), for httpx2 and for httpx, sync and async.

`server_keys.client.httpx2` is for httpx2 and the OpenAI SDK 3, `server_keys.client.httpx` for older clients. The names
here are those of httpx2; neither library is imported before its transports are asked for.
"""

from typing import TYPE_CHECKING, Any

from server_keys.client.errors import (
    KeyConfigurationError,
    KeyRejectedError,
    SealedTransportError,
    UnsealedResponseError,
)

if TYPE_CHECKING:
    from server_keys.client.httpx2 import AsyncSealedTransport, SealedTransport

__all__ = [
    "AsyncSealedTransport",
    "KeyConfigurationError",
    "KeyRejectedError",
    "SealedTransport",
    "SealedTransportError",
    "UnsealedResponseError",
]


def __getattr__(name: str) -> Any:
    if name in ("AsyncSealedTransport", "SealedTransport"):
        from server_keys.client import httpx2

        return getattr(httpx2, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
