"""What can be set at either end of the proxy: one table for each, and one for the limits that both have."""

import ipaddress
import math
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from server_keys._checks import Place, Replay, Required, StoreAway, checked_replay
from server_keys._sealing.protocol import DEFAULT_MAX_BUFFERED_BYTES, DEFAULT_MAX_FRAME_BYTES
from server_keys._sealing.signer import Signer, checked_identity
from server_keys.proxy.own_checks import refusing
from server_keys.proxy.upstream import Upstream

UNIX_PEER = "unix"
"""The word for clients that come over a Unix socket, among the peers that are trusted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long a proxy waits, and how much it does at once.

    Raises:
        TypeError: a value is not a number.
        ValueError: a value is not above zero, or not finite.
    """

    timeout_s: float = 600.0
    """Seconds for which the upstream may send nothing, or take nothing. 600 is the value of the OpenAI SDK."""
    connect_timeout_s: float = 5.0
    """Seconds in which the upstream must take a connection."""
    queue_timeout_s: float = 30.0
    """Seconds for which a request waits while all connections are in use."""
    max_connections: int = 1000
    """How many connections to the upstream there may be at a time. The OpenAI SDK has as many."""

    def __post_init__(self) -> None:
        for name in ("timeout_s", "connect_timeout_s", "queue_timeout_s", "max_connections"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name} must be a number above zero, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SealOptions:
    """The client's end: plaintext comes in, sealed bodies go out.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: `to` is no http or https URL without a path.
    """

    to: str
    """The server: `https://HOST[:PORT]`."""
    names: tuple[str, ...] = ()
    """What `Host` may be: each name that the proxy listens on, with its port (`localhost:8011`)."""
    origins: tuple[str, ...] = ()
    """The web pages that may use the proxy, by their origins (`https://chat.example`), beside its own."""
    verify_key: Callable[[bytes], object | Awaitable[object]] | None = None
    """As for `server_keys.client.AsyncSealedTransport`."""
    verify_answer: Callable[[bytes, str], object | Awaitable[object]] | None = None
    """As for `server_keys.client.AsyncSealedTransport`."""
    require_v1: bool = False
    """As for `server_keys.client.AsyncSealedTransport`."""
    identity: tuple[str, ...] = ()
    """As for `server_keys.client.AsyncSealedTransport`; empty for none."""
    key_url: str | None = None
    """As for `server_keys.client.AsyncSealedTransport`."""
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    """As for `server_keys.client.AsyncSealedTransport`."""
    ca_file: str | None = None
    """A file with the certificates (PEM) that vouch for the server. By default those of this machine."""
    limits: Limits = field(default_factory=Limits)
    """How long to wait, and how much to do at once."""

    def __post_init__(self) -> None:
        if self.upstream.socket_path is not None:
            raise ValueError("the server must be a URL, such as https://my-server, and not a Unix socket")

    @property
    def upstream(self) -> Upstream:
        """Where sealed requests go."""
        return Upstream.parse(self.to)

    def sealing(self) -> dict[str, object]:
        """Return the arguments for the client that seals."""
        return {
            "verify_key": refusing("verify_key", self.verify_key),
            "verify_answer": refusing("verify_answer", self.verify_answer),
            "identity": self.identity or None,
            "require_v1": self.require_v1,
            "key_url": self.key_url,
            "max_frame_bytes": self.max_frame_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOptions:
    """The server's end: sealed bodies come in, plaintext goes to the upstream.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: `to` cannot be used, or is not on this host and `allow_remote_upstream` is false, or one of
            `trusted_peers` is neither an address, a network, nor `"unix"`, or `replay` or `store_away` has no known
            form, or `store_away` is missing or given in vain.
    """

    to: str
    """The upstream: `http://HOST:PORT`, or `unix:/PATH`."""
    allow_remote_upstream: bool = False
    """Whether the upstream may be on another host. What was sealed travels there in plaintext."""
    trusted_peers: tuple[str, ...] = ()
    """The proxies in front of this one whose `X-Forwarded-*` and `Forwarded` are passed on: addresses, networks
    (`10.0.0.0/8`), or `unix` for those that come over a Unix socket. What others say of this kind is dropped."""
    refresh_time: float = 300.0
    """As for `server_keys.protect`, in seconds."""
    overlap: float | None = None
    """As for `server_keys.protect`, in seconds."""
    required: Required = True
    """As for `server_keys.protect`. Bodies in plaintext are refused by default."""
    place: Place = "exact"
    """As for `server_keys.protect`."""
    replay: Replay = "refuse"
    """As for `server_keys.protect`."""
    store_away: StoreAway | None = None
    """As for `server_keys.protect`."""
    open_paths: tuple[str, ...] = ()
    """As for `server_keys.protect`."""
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    """As for `server_keys.protect`."""
    max_buffered_bytes: int = DEFAULT_MAX_BUFFERED_BYTES
    """As for `server_keys.protect`."""
    share: str | None = field(default="auto", repr=False)  # a URL may have a password
    """As for `server_keys.protect`."""
    group_secret_file: str | os.PathLike[str] | None = None
    """As for `server_keys.protect`."""
    identity: str | os.PathLike[str] | Signer | None = None
    """As for `server_keys.protect`."""
    ca_file: str | None = None
    """A file with the certificates (PEM) that vouch for an upstream of `https://`."""
    limits: Limits = field(default_factory=Limits)
    """How long to wait, and how much to do at once."""

    def __post_init__(self) -> None:
        if not self.upstream.is_on_this_host and not self.allow_remote_upstream:
            raise ValueError(
                f"{self.upstream.shown} is not on this host, and what was sealed would travel there in plaintext: use "
                "an address of this host or a Unix socket, or allow a remote upstream"
            )
        self.trusted_networks()
        checked_replay(self.replay, self.store_away)
        if self.identity is not None:
            checked_identity(self.identity)

    @property
    def upstream(self) -> Upstream:
        """Where opened requests go."""
        return Upstream.parse(self.to)

    def trusted_networks(self) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
        """Return the networks among `trusted_peers`."""
        return [_network(peer) for peer in self.trusted_peers if peer != UNIX_PEER]

    def protection(self) -> dict[str, object]:
        """Return the arguments for `server_keys.protect`."""
        return {
            "refresh_time": self.refresh_time,
            "overlap": self.overlap,
            "required": self.required,
            "place": self.place,
            "replay": self.replay,
            "store_away": self.store_away,
            "open_paths": self.open_paths,
            "max_frame_bytes": self.max_frame_bytes,
            "max_buffered_bytes": self.max_buffered_bytes,
            "share": self.share,
            "group_secret_file": self.group_secret_file,
            "identity": self.identity,
        }


def _network(peer: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(peer)
    except ValueError:
        raise ValueError(
            f"a trusted peer must be an address, a network such as 10.0.0.0/8, or {UNIX_PEER!r}, not {peer!r}"
        ) from None
