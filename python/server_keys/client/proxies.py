"""Proxies below the sealing: what leaves through them is sealed already."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from typing import TYPE_CHECKING, Generic, TypeVar
from urllib.request import getproxies

if TYPE_CHECKING:
    import httpx2 as http

TransportT = TypeVar("TransportT")

UNUSABLE_PROXY = "the proxy that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY) cannot be used"
"""How the message of an error about a proxy of the environment begins."""

# RFC 3986, section 3.1.
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*")
_SCHEMES = ("http", "https", "socks5", "socks5h")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class EnvironmentProxies:
    """The proxies that the environment names now: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, and `NO_PROXY`."""

    def __init__(self) -> None:
        self._proxies = getproxies()
        entries = (entry.strip().lower() for entry in self._proxies.get("no", "").split(","))
        self._left_out = [entry for entry in entries if entry]

    @property
    def urls(self) -> set[str]:
        """The proxies' URLs, without those of a scheme of which `NO_PROXY` leaves out everything."""
        urls = {scheme: self._of(scheme) for scheme in ("http", "https")}
        left_out = {scheme for scheme in urls if not {"*", "all://*", f"{scheme}://*"}.isdisjoint(self._left_out)}
        return {url for scheme, url in urls.items() if url is not None and scheme not in left_out}

    def url_for(self, url: http.URL) -> str | None:
        """Return the URL of the proxy for requests to `url`, or None if they go to the server directly."""
        return None if self._is_left_out(url) else self._of(url.scheme)

    def _of(self, scheme: str) -> str | None:
        proxy = self._proxies.get(scheme) or self._proxies.get("all")
        return proxy if not proxy or "://" in proxy else f"http://{proxy}"

    def _is_left_out(self, url: http.URL) -> bool:
        return any(_covers(entry, url) for entry in self._left_out)


class Routes(Generic[TransportT]):
    """Sends each request through the proxy that the environment names for it, or directly.

    Args:
        proxies: the proxies.
        transport_through: makes the transport through the proxy with this URL, or through none.

    Raises:
        ValueError: one of the proxies cannot be used. The message does not quote its URL, which may have a password.
    """

    def __init__(self, proxies: EnvironmentProxies, transport_through: Callable[[str | None], TransportT]) -> None:
        self._proxies = proxies
        self._transports: dict[str | None, TransportT] = {None: transport_through(None)}
        for url in proxies.urls:
            try:
                self._transports[url] = transport_through(url)
            except Exception as error:  # noqa: BLE001 - each library has errors of its own for a URL that it cannot use
                raise ValueError(f"{UNUSABLE_PROXY}: {_why(error, url)}") from None

    def _transport_for(self, url: http.URL) -> TransportT:
        return self._transports[self._proxies.url_for(url)]


class SyncRoutes(Routes["http.BaseTransport"]):
    """Sends each request through the proxy that the environment names for it, or directly."""

    def handle_request(self, request: http.Request) -> http.Response:
        """Send `request` on its way."""
        return self._transport_for(request.url).handle_request(request)

    def close(self) -> None:
        """Close the transports."""
        with ExitStack() as stack:
            for transport in self._transports.values():
                stack.callback(transport.close)


class AsyncRoutes(Routes["http.AsyncBaseTransport"]):
    """Sends each request through the proxy that the environment names for it, or directly."""

    async def handle_async_request(self, request: http.Request) -> http.Response:
        """Send `request` on its way."""
        return await self._transport_for(request.url).handle_async_request(request)

    async def aclose(self) -> None:
        """Close the transports."""
        async with AsyncExitStack() as stack:
            for transport in self._transports.values():
                stack.push_async_callback(transport.aclose)


def _why(error: Exception, url: str) -> str:
    if isinstance(error, ImportError):
        return str(error)  # it says what to install
    scheme = url.partition("://")[0].lower()
    # What has another form may be a part of a password.
    if scheme in _SCHEMES or not _SCHEME.fullmatch(scheme):
        return "the URL cannot be read"
    return f"its scheme is {scheme!r}, and must be one of {', '.join(_SCHEMES)}"


def _covers(entry: str, url: http.URL) -> bool:
    """Return whether an entry of `NO_PROXY` covers `url`: a host and what is below it, a network, or everything.

    As for httpx, an entry may begin with a scheme and end with a port.
    """
    scheme, _, place = entry.removesuffix("/").rpartition("://")
    if scheme not in ("", "all", url.scheme):
        return False
    if place == "*":
        return True
    host, address = url.host, _address(url.host)
    if address is not None and "/" in place:
        network = _network(place)
        return network is not None and address in network
    name, port = _host_and_port(place)
    if port is not None and port != str(url.port or _DEFAULT_PORTS.get(url.scheme)):
        return False
    name = name.lstrip("*").lstrip(".")
    return name == host or (address is None and host.endswith(f".{name}"))


def _host_and_port(place: str) -> tuple[str, str | None]:
    bracketed, _, rest = place.partition("]")
    if bracketed.startswith("["):
        return bracketed[1:], rest.removeprefix(":") or None
    name, colon, port = place.partition(":")
    # More colons than one are those of an IPv6 address.
    return (name, port) if colon and ":" not in port else (place, None)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _network(entry: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
