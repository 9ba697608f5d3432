"""The server's end of the proxy."""

import httpx2
from fastapi import FastAPI
from starlette.types import ASGIApp

from server_keys.build_app import protect
from server_keys.proxy.forwarded import Forwarded
from server_keys.proxy.forwarder import Forwarder
from server_keys.proxy.http_client import client_options, closing
from server_keys.proxy.options import OpenOptions
from server_keys.proxy.quiet import Quiet


def open_app(options: OpenOptions) -> ASGIApp:
    """Return the server's end: an ASGI app with rotating keys that opens requests and passes them on to an upstream.

    Its responses are sealed as those of an app after `server_keys.protect`, which it is. Let its server take no
    client's word for an address (uvicorn: `--no-proxy-headers`): `options.trusted_peers` says whose word counts.

    Args:
        options: what it does.

    Raises:
        TypeError: an option has the wrong type.
        ValueError: an option is out of its range, or keys cannot be shared as asked.
        OSError: `ca_file` cannot be read.
    """
    return Quiet(protected_forwarder(options))


def protected_forwarder(options: OpenOptions) -> FastAPI:
    """Return what `open_app` has inside: the app that has the keys. The errors are the same."""
    upstream = options.upstream
    given = client_options(options.limits, options.ca_file)
    transport = httpx2.AsyncHTTPTransport(
        verify=given.pop("verify"),
        limits=given.pop("limits"),
        uds=upstream.socket_path,
        trust_env=False,
    )
    client = httpx2.AsyncClient(transport=transport, trust_env=False, **given)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=closing(client))
    app.router.default = Forwarder(client, upstream, Forwarded.by(options.trusted_peers).added_to)
    return protect(app, **options.protection())  # type: ignore[arg-type] # it has their names and types
