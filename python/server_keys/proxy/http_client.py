"""The HTTP client of either end: it sends for many, and keeps nothing of any."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from http.cookiejar import CookieJar
from typing import Any

import httpx2

from server_keys.proxy.options import Limits

# Servers keep an idle connection for 5 s (uvicorn) or longer. One that ends while a request leaves loses that request.
_KEPT_IDLE_S = 4.0


def client_options(limits: Limits, ca_file: str | None) -> dict[str, Any]:
    """Return the arguments of the HTTP client.

    Raises:
        OSError: `ca_file` cannot be read.
    """
    return {
        "verify": ssl.create_default_context(cafile=ca_file) if ca_file is not None else True,
        "limits": httpx2.Limits(
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_connections,
            keepalive_expiry=_KEPT_IDLE_S,
        ),
        "timeout": httpx2.Timeout(limits.timeout_s, connect=limits.connect_timeout_s, pool=limits.queue_timeout_s),
        "cookies": _NoCookies(),
    }


class _NoCookies(CookieJar):
    """The cookies that a proxy keeps: none. Each client's own are in its headers."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Keep nothing."""


def closing(client: httpx2.AsyncClient) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """Return an app's lifespan that closes `client` at its end."""

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with client:
            yield

    return lifespan
