"""What an upstream learns of the client: `X-Forwarded-*` and `Forwarded` (RFC 7239), from peers that are trusted."""

import ipaddress
import re
from collections.abc import Sequence

from starlette.types import Scope

from server_keys.proxy.headers import RawHeaders
from server_keys.proxy.options import UNIX_PEER

_FOR, _HOST, _PROTO = b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"
_PREFIX = b"x-forwarded-"
_OTHERS = frozenset({b"forwarded", b"x-real-ip"})
# The rest would need quoting that few parsers undo.
_PLAIN_HOST = re.compile(rb"[\w.:\[\]-]+")


class Forwarded:
    """Tells an upstream who asks.

    Args:
        networks: where the peers are whose word is passed on.
        unix_too: whether peers that come over a Unix socket are among them.
    """

    def __init__(
        self, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network], *, unix_too: bool = False
    ) -> None:
        self._networks = networks
        self._unix_too = unix_too

    @classmethod
    def by(cls, trusted_peers: Sequence[str]) -> "Forwarded":
        """Return what trusts these peers, which are checked."""
        networks = [ipaddress.ip_network(peer) for peer in trusted_peers if peer != UNIX_PEER]
        return cls(networks, unix_too=UNIX_PEER in trusted_peers)

    def added_to(self, headers: RawHeaders, scope: Scope) -> RawHeaders:
        """Return `headers` with what is known of the client.

        Args:
            headers: the request's, as they are passed on.
            scope: the request's, as it came.
        """
        client = scope.get("client")
        address = client[0] if client else None
        said = [header for header in headers if _is_about_clients(header[0])] if self._trusts(address) else []
        kept = [header for header in headers if not _is_about_clients(header[0])]
        host = next((value for name, value in scope["headers"] if name == b"host"), b"")
        proto = scope["scheme"].encode()
        hops = [value for name, value in said if name == _FOR]
        if address is not None:
            hops.append(address.encode())
        added = [header for header in said if header[0] not in (_FOR, b"forwarded")]
        names = {name for name, _ in added}
        if hops:
            added.append((_FOR, b", ".join(hops)))
        if _HOST not in names and host:
            added.append((_HOST, host))
        if _PROTO not in names:
            added.append((_PROTO, proto))
        elements = [value for name, value in said if name == b"forwarded"]
        added.append((b"forwarded", b", ".join([*elements, _element(address, host, proto)])))
        return [*kept, *added]

    def _trusts(self, address: str | None) -> bool:
        if address is None:
            return self._unix_too
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


def _is_about_clients(name: bytes) -> bool:
    return name.startswith(_PREFIX) or name in _OTHERS


def _element(address: str | None, host: bytes, proto: bytes) -> bytes:
    """Return this hop's element of `Forwarded`."""
    client = (address or "unknown").encode()
    pairs = [b'for="[%s]"' % client if b":" in client else b"for=" + client]
    if _PLAIN_HOST.fullmatch(host):
        pairs.append(b'host="%s"' % host)
    return b";".join([*pairs, b"proto=" + proto])
