"""Sealing transports and clients for httpx2, the HTTP client of the OpenAI SDK 3."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

try:
    import httpx2
except ModuleNotFoundError as _error:
    if _error.name != "httpx2":
        raise
    raise ModuleNotFoundError(
        f"{__name__} is for httpx2, which is not installed: pip install httpx2; for httpx there is "
        "server_keys.client.httpx",
        name="httpx2",
    ) from _error

from server_keys._sealing.protocol import DEFAULT_MAX_FRAME_BYTES
from server_keys.client import factories, opening, proxies, sealing, transports
from server_keys.client.key_checks import AsyncVerifyAnswer, AsyncVerifyKey, VerifyAnswer, VerifyKey
from server_keys.client.steps import Library


class _Opened(opening.SyncOpening, httpx2.SyncByteStream):
    pass


class _AsyncOpened(opening.AsyncOpening, httpx2.AsyncByteStream):
    pass


class _Sealed(sealing.SyncSealing, httpx2.SyncByteStream):
    pass


class _AsyncSealed(sealing.AsyncSealing, httpx2.AsyncByteStream):
    pass


class _Routes(proxies.SyncRoutes, httpx2.BaseTransport):
    pass


class _AsyncRoutes(proxies.AsyncRoutes, httpx2.AsyncBaseTransport):
    pass


class SealedTransport(  # noqa: D101 - it has its base's docstring
    transports.SyncSealedTransport[httpx2.BaseTransport, httpx2.Request, httpx2.Response], httpx2.BaseTransport
):
    __doc__ = transports.SyncSealedTransport.__doc__
    library: ClassVar[Library] = httpx2
    _stream_types = (_Opened, _Sealed)


class AsyncSealedTransport(  # noqa: D101 - it has its base's docstring
    transports.AsyncSealedTransport[httpx2.AsyncBaseTransport, httpx2.Request, httpx2.Response],
    httpx2.AsyncBaseTransport,
):
    __doc__ = transports.AsyncSealedTransport.__doc__
    library: ClassVar[Library] = httpx2
    _stream_types = (_AsyncOpened, _AsyncSealed)


@factories.documented
def sealed_client(  # noqa: D103 - it is documented
    *,
    verify_key: VerifyKey | None = None,
    verify_answer: VerifyAnswer | None = None,
    require_v1: bool = False,
    identity: str | Iterable[str] | None = None,
    key_url: str | None = None,
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    **options: Any,
) -> httpx2.Client:
    sealing = {
        "verify_key": verify_key,
        "verify_answer": verify_answer,
        "require_v1": require_v1,
        "identity": identity,
        "key_url": key_url,
        "max_frame_bytes": max_frame_bytes,
    }
    return httpx2.Client(**factories.client_arguments(SealedTransport, httpx2.HTTPTransport, _Routes, options, sealing))


def async_client_arguments(options: dict[str, Any], sealing: Mapping[str, object]) -> dict[str, Any]:
    """Return the arguments of the client that `async_sealed_client` returns: their `transport` seals.

    Args:
        options: the client's arguments, as the user gave them.
        sealing: the arguments of the transport.

    Raises:
        TypeError: an option would go around the sealing.
    """
    return factories.client_arguments(AsyncSealedTransport, httpx2.AsyncHTTPTransport, _AsyncRoutes, options, sealing)


@factories.documented
def async_sealed_client(  # noqa: D103 - it is documented
    *,
    verify_key: AsyncVerifyKey | None = None,
    verify_answer: AsyncVerifyAnswer | None = None,
    require_v1: bool = False,
    identity: str | Iterable[str] | None = None,
    key_url: str | None = None,
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
    **options: Any,
) -> httpx2.AsyncClient:
    sealing = {
        "verify_key": verify_key,
        "verify_answer": verify_answer,
        "require_v1": require_v1,
        "identity": identity,
        "key_url": key_url,
        "max_frame_bytes": max_frame_bytes,
    }
    return httpx2.AsyncClient(**async_client_arguments(options, sealing))
