"""How the doctor talks to a server: through the client that everybody uses, with a look at what is on the wire."""

import ssl
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import httpx2

from server_keys._sealing.key_entries import PublishedKeys, keys_of
from server_keys._sealing.key_signature import KeySignature, signature_of
from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE, RESPONSE_NONCE_HEADER
from server_keys.client.httpx2 import SealedTransport
from server_keys.client.proxies import EnvironmentProxies, SyncRoutes
from server_keys.client.unsealed import media_type
from server_keys.proxy.upstream import Upstream

_ID_DIGITS = 16
# Firewalls refuse requests that do not say what asks.
_HEADERS = ((b"User-Agent", b"server-keys"), (b"Content-Type", b"application/json"))


@dataclass(frozen=True)
class Target:
    """The server that is checked, and how to reach it."""

    upstream: Upstream
    key_url: str
    context: ssl.SSLContext
    timeout_s: float
    identities: tuple[str, ...] = ()
    """The identities, one of which must have signed its keys. Without any, whoever signed them is believed."""

    def connection(self) -> httpx2.BaseTransport:
        """Return a connection of its own, through the proxy that the environment names for it, as a client's.

        Raises:
            ValueError: that proxy cannot be used.
        """

        def through(proxy: str | None) -> httpx2.BaseTransport:
            return httpx2.HTTPTransport(verify=self.context, proxy=proxy, limits=httpx2.Limits(max_connections=1))

        return _Routes(EnvironmentProxies(), through)

    def request(
        self, method: str, path: str, *, headers: Sequence[tuple[bytes, bytes]] = (), body: bytes = b""
    ) -> httpx2.Request:
        """Return a request for it. Headers of the caller's replace those that it has by itself.

        Raises:
            ValueError: `path` cannot be a part of a URL.
        """
        try:
            # Not joined: a path that begins with two slashes would be another server's.
            url = httpx2.URL(self.upstream.url.removesuffix("/") + path)
        except (httpx2.InvalidURL, UnicodeError):
            raise ValueError(f"it cannot be a path: {path!r}") from None
        given = {name.lower() for name, _ in headers}
        own = [(name, value) for name, value in _HEADERS if name.lower() not in given]
        extensions = {"timeout": httpx2.Timeout(self.timeout_s).as_dict()}
        return httpx2.Request(method, url, headers=[*own, *headers], content=body or None, extensions=extensions)


class _Routes(SyncRoutes, httpx2.BaseTransport):
    pass


@dataclass(frozen=True)
class KeyAnswer:
    """What a server answers who asks for its key."""

    status: int
    headers: httpx2.Headers
    body: bytes
    took_s: float
    tls: str | None

    @property
    def public_key(self) -> bytes | None:
        """The key, or None if the answer is none."""
        if self.status != 200 or media_type(self.headers.get("Content-Type")) != KEY_CONFIG_MEDIA_TYPE:
            return None
        keys = self._keys
        return keys and keys.x25519

    @property
    def offers_v1(self) -> bool:
        """Whether there is a key for version 1 of the wire, too."""
        return self._keys is not None and self._keys.xwing is not None

    @property
    def signature(self) -> KeySignature | None:
        """The signature by an identity, unchecked; None if there is none, or one that no client takes."""
        try:
            return signature_of(self.body)[1]
        except ValueError:
            return None

    @property
    def _keys(self) -> PublishedKeys | None:
        try:
            return keys_of(self.body)
        except ValueError:
            return None

    @property
    def key_id(self) -> str:
        """The key's first hex digits, as a server's log has them."""
        return (self.public_key or b"").hex()[:_ID_DIGITS]


@dataclass
class WireAnswer:
    """A response as it came: before anything of it was opened."""

    status: int
    headers: httpx2.Headers
    asked_at: float
    piece_times: list[float] = field(default_factory=list)
    """Seconds from the request to each piece of the body."""


class Wire(httpx2.BaseTransport):
    """One connection, on which the doctor sees responses as they come.

    Args:
        inner: the connection.
        key: the answer to give who asks for the key, instead of the server's.
        key_url: where the key is asked for.
    """

    def __init__(self, inner: httpx2.BaseTransport, key: KeyAnswer, key_url: httpx2.URL) -> None:
        self._inner = inner
        self._key = key
        self._key_url = key_url
        self.answers: list[WireAnswer] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send `request`, unless it asks for the key."""
        if request.method == "GET" and request.url == self._key_url:
            return httpx2.Response(200, headers={"Content-Type": KEY_CONFIG_MEDIA_TYPE}, content=self._key.body)
        answer = WireAnswer(0, httpx2.Headers(), time.monotonic())
        response = self._inner.handle_request(request)
        answer.status, answer.headers = response.status_code, response.headers
        self.answers.append(answer)
        response.stream = _Timed(cast("httpx2.SyncByteStream", response.stream), answer)
        return response

    def close(self) -> None:
        """Close the connection."""
        self._inner.close()


class _Timed(httpx2.SyncByteStream):
    """A body that notes when its pieces come."""

    def __init__(self, stream: httpx2.SyncByteStream, answer: WireAnswer) -> None:
        self._stream = stream
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._answer.piece_times.append(time.monotonic() - self._answer.asked_at)
            yield piece

    def close(self) -> None:
        self._stream.close()


@dataclass(frozen=True)
class Exchanged:
    """What became of one sealed request."""

    status: int
    is_sealed: bool
    body: bytes
    took_s: float
    wire: WireAnswer

    @property
    def is_key_refused(self) -> bool:
        """Whether the server does not accept the key."""
        return self.status == 422 and not self.is_sealed


def fetch_key(target: Target) -> KeyAnswer:
    """Ask for the key over a new connection.

    Raises:
        httpx2.TransportError: nobody answers.
    """
    began_at = time.monotonic()
    with httpx2.Client(transport=target.connection()) as client:
        headers = {"Accept": KEY_CONFIG_MEDIA_TYPE, "Accept-Encoding": "identity"}
        with client.stream("GET", key_address(target), headers=headers, timeout=target.timeout_s) as response:
            stream = response.extensions.get("network_stream")
            tls = stream.get_extra_info("ssl_object") if stream is not None else None
            body = b""
            for piece in response.iter_raw():
                body += piece
                if len(body) > 64 * 1024:
                    break
    version = tls.version() if tls is not None else None
    return KeyAnswer(response.status_code, response.headers, body, time.monotonic() - began_at, version)


def exchange(target: Target, key: KeyAnswer, request: httpx2.Request) -> Exchanged:
    """Send `request` sealed to `key` over a new connection, and read the answer.

    Raises:
        KeyRejectedError: no identity of the target has signed `key`. Nothing was sent.
        SealedTransportError: the answer is not sealed, and a success or a redirect.
        MalformedMessageError: it cannot be opened.
        httpx2.RequestError: nobody answers, or the answer cannot be read.
    """
    wire = Wire(target.connection(), key, key_address(target))
    began_at = time.monotonic()
    sealing = SealedTransport(wire, key_url=target.key_url, identity=target.identities or None)
    with httpx2.Client(transport=sealing) as client:
        response = client.send(request)
    is_sealed = RESPONSE_NONCE_HEADER in wire.answers[-1].headers
    took_s = time.monotonic() - began_at
    return Exchanged(response.status_code, is_sealed, response.content, took_s, wire.answers[-1])


def key_address(target: Target) -> httpx2.URL:
    """Return where the key is published.

    Raises:
        ValueError: the URL that was given for it cannot be used.
    """
    try:
        return httpx2.URL(target.upstream.url).join(target.key_url)
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise ValueError(f"it cannot be a URL: {target.key_url!r} ({error})") from None
