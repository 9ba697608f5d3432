"""Sealing transports and clients for httpx, the HTTP client of the OpenAI SDK before 3 and of many others."""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

try:
    import httpx
except ModuleNotFoundError as _error:
    if _error.name != "httpx":
        raise
    raise ModuleNotFoundError(
        f"{__name__} is for httpx, which is not installed: pip install httpx; for httpx2 there is "
        "server_keys.client.httpx2",
        name="httpx",
    ) from _error

from server_keys._sealing.protocol import DEFAULT_MAX_FRAME_BYTES
from server_keys.client import factories, opening, proxies, sealing, transports
from server_keys.client.key_checks import AsyncVerifyAnswer, AsyncVerifyKey, VerifyAnswer, VerifyKey
from server_keys.client.steps import Library


class _Opened(opening.SyncOpening, httpx.SyncByteStream):
    response_is_in_cycle = True


class _AsyncOpened(opening.AsyncOpening, httpx.AsyncByteStream):
    response_is_in_cycle = True


class _Sealed(sealing.SyncSealing, httpx.SyncByteStream):
    pass


class _AsyncSealed(sealing.AsyncSealing, httpx.AsyncByteStream):
    pass


# The routes are typed with httpx2's types. To mypy, those of httpx are others.
class _Routes(proxies.SyncRoutes, httpx.BaseTransport):  # type: ignore[misc]
    pass


class _AsyncRoutes(proxies.AsyncRoutes, httpx.AsyncBaseTransport):  # type: ignore[misc]
    pass


class SealedTransport(  # noqa: D101 - it has its base's docstring
    transports.SyncSealedTransport[httpx.BaseTransport, httpx.Request, httpx.Response], httpx.BaseTransport
):
    __doc__ = transports.SyncSealedTransport.__doc__
    library: ClassVar[Library] = cast("Library", httpx)
    _stream_types = (_Opened, _Sealed)


class AsyncSealedTransport(  # noqa: D101 - it has its base's docstring
    transports.AsyncSealedTransport[httpx.AsyncBaseTransport, httpx.Request, httpx.Response],
    httpx.AsyncBaseTransport,
):
    __doc__ = transports.AsyncSealedTransport.__doc__
    library: ClassVar[Library] = cast("Library", httpx)
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
) -> httpx.Client:
    sealing = {
        "verify_key": verify_key,
        "verify_answer": verify_answer,
        "require_v1": require_v1,
        "identity": identity,
        "key_url": key_url,
        "max_frame_bytes": max_frame_bytes,
    }
    return httpx.Client(**factories.client_arguments(SealedTransport, httpx.HTTPTransport, _Routes, options, sealing))


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
) -> httpx.AsyncClient:
    sealing = {
        "verify_key": verify_key,
        "verify_answer": verify_answer,
        "require_v1": require_v1,
        "identity": identity,
        "key_url": key_url,
        "max_frame_bytes": max_frame_bytes,
    }
    return httpx.AsyncClient(
        **factories.client_arguments(AsyncSealedTransport, httpx.AsyncHTTPTransport, _AsyncRoutes, options, sealing)
    )
