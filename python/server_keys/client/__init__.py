"""Clients that seal requests and open responses, for httpx2 and for httpx, sync and async.

`sealed_client()` and `async_sealed_client()` make whole clients, for `http_client=` of the OpenAI SDK. In them
`SealedTransport` and `AsyncSealedTransport` do the sealing.

`server_keys.client.httpx2` is for httpx2 and the OpenAI SDK 3, `server_keys.client.httpx` is for older clients. The
names here are those of httpx2. Neither library is imported before one of them is used.
"""

from typing import TYPE_CHECKING

from server_keys._native import FrameTooLargeError, MalformedMessageError, MissingEndError
from server_keys.errors import (
    KeyConfigurationError,
    KeyNotPublishedError,
    KeyRejectedError,
    SealedTransportError,
    StatusMismatchError,
    UnsealedResponseError,
)

if TYPE_CHECKING:
    from server_keys.client.httpx2 import AsyncSealedTransport, SealedTransport, async_sealed_client, sealed_client

__all__ = [
    "AsyncSealedTransport",
    "FrameTooLargeError",
    "KeyConfigurationError",
    "KeyNotPublishedError",
    "KeyRejectedError",
    "MalformedMessageError",
    "MissingEndError",
    "SealedTransport",
    "SealedTransportError",
    "StatusMismatchError",
    "UnsealedResponseError",
    "async_sealed_client",
    "sealed_client",
]

_OF_HTTPX2 = ("AsyncSealedTransport", "SealedTransport", "async_sealed_client", "sealed_client")

# Type checkers would let a module with a `__getattr__` have every attribute.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name in _OF_HTTPX2:
            try:
                from server_keys.client import httpx2
            except ModuleNotFoundError as error:
                if error.name != "httpx2":
                    raise
                raise ModuleNotFoundError(
                    f"{name} is for httpx2, which is not installed: pip install httpx2; "
                    f"for httpx there is server_keys.client.httpx.{name}",
                    name=error.name,
                ) from error
            return getattr(httpx2, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
