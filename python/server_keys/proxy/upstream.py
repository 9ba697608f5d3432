"""Where a proxy passes requests on to: one authority, whatever a request says."""

import ipaddress
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, urlsplit

from server_keys._checks import is_host

_EXAMPLE = "such as http://127.0.0.1:8080 or unix:/run/model.sock"
_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Upstream:
    """The server behind a proxy."""

    scheme: str
    """`http` or `https`."""
    authority: str
    """Its host and port, as they stand in `Host`. A server behind a Unix socket is called `localhost`."""
    socket_path: str | None = None
    """The Unix socket that it listens on."""

    @classmethod
    def parse(cls, to: str) -> Self:
        """Return what `to` names: `http://HOST[:PORT]`, `https://HOST[:PORT]`, or `unix:/PATH` (HTTP over that socket).

        Raises:
            ValueError: it is none of these, or has credentials, a path, a query or a fragment. The message has no
                credentials.
        """
        if to.startswith("unix:"):
            return cls("http", "localhost", _socket_path(to))
        parts = _split(to)
        if "@" in parts.netloc:
            raise ValueError("a user name or password cannot be a part of it: let clients send their own credentials")
        if parts.scheme not in _PORTS or not is_host(parts.hostname or ""):
            raise ValueError(f"it must be a URL, {_EXAMPLE}, not {to!r}")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise ValueError(
                f"it must end after the host and port, because each request brings a path of its own: "
                f"{parts.scheme}://{parts.netloc}, not {to!r}"
            )
        # As every client names it: some servers do not know themselves by a name with the default port.
        named = parts.netloc.lower().removesuffix(":")
        return cls(parts.scheme, named.removesuffix(f":{_PORTS[parts.scheme]}"))

    @property
    def url(self) -> str:
        """The URL of its root, for an HTTP client."""
        return f"{self.scheme}://{self.authority}/"

    @property
    def shown(self) -> str:
        """What a log calls it."""
        return self.url.removesuffix("/") if self.socket_path is None else f"unix:{self.socket_path}"

    @property
    def is_on_this_host(self) -> bool:
        """Whether what is sent there stays on this host: a Unix socket, a loopback address, or `localhost`.

        Other names count as remote: what they stand for can change.
        """
        return self.socket_path is not None or is_loopback(urlsplit(self.url).hostname or "")

    @property
    def address(self) -> str:
        """Its host and port, the port also where the authority leaves it out."""
        return _with_port(self.scheme, self.authority)

    def path_of(self, location: str) -> str | None:
        """Return the path, and what follows it, of a URL of this server; None for any other reference.

        A server that does not know of the TLS before it names itself with `http`, so that counts, too.
        """
        if not location.isprintable():
            return None
        try:
            parts = urlsplit(location)
            scheme, authority = parts.scheme or self.scheme, parts.netloc.lower()
            is_own = scheme == self.scheme and _with_port(scheme, authority) == self.address
        except ValueError:
            return None
        if not authority or not (is_own or (scheme == "http" and authority == self.authority)):
            return None
        path = location[location.index("//") + 2 + len(authority) :]
        if not path.startswith("/"):
            path = f"/{path}"
        # Two slashes would be followed by the name of another server, and browsers take a backslash for one.
        return None if path[1:2] in ("/", "\\") else path


def _with_port(scheme: str, authority: str) -> str:
    return authority if urlsplit(f"//{authority}").port else f"{authority}:{_PORTS[scheme]}"


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or an address of the loopback interface."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _socket_path(to: str) -> str:
    path = to.removeprefix("unix:")
    if not path.startswith("/"):
        raise ValueError(f"a Unix socket must have an absolute path, such as unix:/run/model.sock, not {to!r}")
    return path


def _split(to: str) -> SplitResult:
    try:
        parts = urlsplit(to)
        _ = parts.port  # raises a ValueError if there is none of that number
    except ValueError as error:
        raise ValueError(f"it must be a URL, {_EXAMPLE}: {error}") from None
    if not to.isascii() or not to.isprintable() or " " in to:
        raise ValueError(f"it must be a URL of ASCII characters, {_EXAMPLE}, not {to!r}")
    return parts
