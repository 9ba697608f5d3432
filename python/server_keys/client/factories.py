"""Clients that cannot send a body in plaintext: proxies and certificates belong to the transport below the sealing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from server_keys.client.proxies import EnvironmentProxies

if TYPE_CHECKING:
    from server_keys.client.steps import Library

# The values of the OpenAI SDK's own client: an answer may take minutes, and many may come at once.
_TIMEOUT_S = 600.0
_CONNECT_TIMEOUT_S = 5.0
_MAX_CONNECTIONS = 1000
_MAX_KEEPALIVE_CONNECTIONS = 100

FactoryT = TypeVar("FactoryT", bound=Callable[..., object])

_DOCUMENTATION = """Return a client that seals its requests, for `http_client=` of the OpenAI SDK.

    Everything that it sends goes through one `SealedTransport`, also where a proxy is set, here or in the environment
    (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`): proxies see sealed bodies only.

    Args:
        verify_key: as for `SealedTransport`.
        verify_answer: as for `SealedTransport`.
        require_v1: as for `SealedTransport`.
        identity: as for `SealedTransport`.
        key_url: as for `SealedTransport`.
        max_frame_bytes: as for `SealedTransport`.
        options: as for the library's own client: `proxy`, `trust_env`, `verify`, `cert`, `http1`, `http2`, `limits`,
            `timeout`, `headers`, `auth`, `base_url` and so on. The OpenAI SDK's defaults hold for `limits` (1000
            connections), `timeout` (600 s, and 5 s to connect) and `follow_redirects` (True).

    Returns:
        An ordinary client of the library. Close it, or use it in a `with` block.

    Raises:
        TypeError: an argument has the wrong type, or is `transport` or `mounts`: bodies would go around the sealing; or
            `require_v1` comes with `verify_key` alone.
        ValueError: `max_frame_bytes` is out of its range, `key_url` is neither a path nor a URL, `identity` is none, or
            a proxy that the environment names cannot be used.
    """


def documented(factory: FactoryT) -> FactoryT:
    """Give `factory` the documentation that all of them have."""
    factory.__doc__ = _DOCUMENTATION
    return factory


def client_arguments(
    sealed_transport: type[Any],
    http_transport: Callable[..., object],
    routes: Callable[..., object],
    options: dict[str, Any],
    sealing: Mapping[str, object],
) -> dict[str, Any]:
    """Return the arguments for a client whose only transport seals.

    Args:
        sealed_transport: a library's transport that seals.
        http_transport: the library's transport that sends.
        routes: the library's transport that sends through the proxies of the environment.
        options: the client's arguments, as the user gave them.
        sealing: the arguments of the transport that seals.

    Raises:
        TypeError: an option would go around the sealing.
    """
    library: Library = sealed_transport.library
    _refuse_detours(options, sealed_transport.__name__)
    proxy, trust_env = options.pop("proxy", None), options.get("trust_env", True)
    context = library.create_ssl_context(options.pop("verify", True), options.pop("cert", None), trust_env)
    limits = options.pop("limits", None) or library.Limits(
        max_connections=_MAX_CONNECTIONS, max_keepalive_connections=_MAX_KEEPALIVE_CONNECTIONS
    )
    # The client gets them, too: it says what to install for HTTP/2.
    protocols = {name: options[name] for name in ("http1", "http2") if name in options}

    def through(limits: object, url: object) -> object:
        return http_transport(proxy=url, verify=context, trust_env=trust_env, limits=limits, **protocols)

    environment = EnvironmentProxies() if trust_env and proxy is None else None

    def inner(limits: object) -> object:
        if environment is not None and environment.urls:
            return routes(environment, partial(through, limits))
        return through(limits, proxy)

    one_connection = partial(inner, library.Limits(max_connections=1))
    transport = sealed_transport(inner(limits), one_connection=one_connection, **sealing)
    defaults = {"timeout": library.Timeout(_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S), "follow_redirects": True}
    return {**defaults, **options, "transport": transport}


def _refuse_detours(options: dict[str, Any], sealed_transport: str) -> None:
    for name in ("transport", "mounts"):
        if options.pop(name, None) is not None:
            client = sealed_transport.removesuffix("SealedTransport") + "Client"
            raise TypeError(
                f"a sealed client takes no {name}=, because bodies would go around the sealing: use proxy=, verify=, "
                "cert=, http2= and limits=, which act below it; to put a transport of your own there, write "
                f"{client}(transport={sealed_transport}(yours))"
            )
