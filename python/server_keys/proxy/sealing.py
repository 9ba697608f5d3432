"""The client's end of the proxy."""

from starlette.routing import Router
from starlette.types import ASGIApp

from server_keys.client.httpx2 import async_sealed_client
from server_keys.proxy.forwarder import Forwarder
from server_keys.proxy.gate import Gate
from server_keys.proxy.http_client import client_options, closing
from server_keys.proxy.options import SealOptions
from server_keys.proxy.quiet import Quiet


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
    client = async_sealed_client(
        **client_options(options.limits, options.ca_file),
        **options.sealing(),  # type: ignore[arg-type] # it has the names and types of these parameters
        follow_redirects=False,
    )
    forwarder = Forwarder(client, options.upstream)
    router = Router(redirect_slashes=False, default=forwarder, lifespan=closing(client))
    return Quiet(Gate(router, options.names, options.origins))
