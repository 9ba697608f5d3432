"""The client's end of the proxy."""

import functools
from collections.abc import Awaitable, Callable

import httpx2
from starlette.routing import Router
from starlette.types import ASGIApp

from server_keys.client.httpx2 import AsyncSealedTransport, async_client_arguments
from server_keys.client.transports import fetch_key
from server_keys.proxy.failures import BROKEN, failure_of
from server_keys.proxy.forwarder import Forwarder
from server_keys.proxy.gate import Gate
from server_keys.proxy.http_client import client_options, closing
from server_keys.proxy.options import SealOptions
from server_keys.proxy.quiet import Quiet

WhyNotReady = Callable[[], Awaitable[str | None]]

# Whoever asks whether it is ready waits for seconds at most.
_MOST_PATIENCE_S = 10.0


def seal_app(options: SealOptions) -> ASGIApp:
    """Return the client's end: an ASGI app that seals what any program sends it, and opens the answers.

    It serves programs of this machine. Every request whose `Host` is none of `options.names` is refused, and so is
    every web page that is not of one of `options.origins`. A server other than uvicorn may also let requests in
    absolute form pass, because ASGI does not tell.

    Args:
        options: what it does.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: an option is out of its range.
        OSError: `ca_file` cannot be read.
    """
    return Quiet(sealing_forwarder(options)[0])


def sealing_forwarder(options: SealOptions) -> tuple[ASGIApp, WhyNotReady]:
    """Return what `seal_app` has inside, and what tells why nothing can be sealed now. The errors are the same."""
    given = client_options(options.limits, options.ca_file) | {"follow_redirects": False}
    arguments = async_client_arguments(given, options.sealing())
    client = httpx2.AsyncClient(**arguments)
    forwarder = Forwarder(client, options.upstream)
    router = Router(redirect_slashes=False, default=forwarder, lifespan=closing(client))
    why_not_ready = functools.partial(_why_not_ready, arguments["transport"], options)
    return Gate(router, options.names, options.origins), why_not_ready


async def _why_not_ready(transport: AsyncSealedTransport, options: SealOptions) -> str | None:
    """Return why there is no key of the server to seal to; None if there is one, which passed all checks.

    It is the one that requests are sealed to: known, or fetched now.
    """
    limits, upstream = options.limits, options.upstream
    timeout = httpx2.Timeout(min(_MOST_PATIENCE_S, limits.timeout_s), connect=limits.connect_timeout_s)
    request = httpx2.Request(
        "GET", upstream.url, headers={"Host": upstream.authority}, extensions={"timeout": timeout.as_dict()}
    )
    try:
        status = await fetch_key(transport, request)
    except BROKEN as error:
        return failure_of(error).reason
    return None if status is None else f"{upstream.shown} answered with status {status} when asked for its key"
