"""Where a server publishes its key, and the request that asks for it there."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from server_keys._checks import is_host
from server_keys._sealing import place
from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE, KEY_CONFIG_PATH
from server_keys._sealing.wire_v1 import sealed_target
from server_keys.errors import SealedTransportError

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.steps import Library

_USER_AGENT = "server-keys"


class KeyLocation:
    """Where the keys are that requests are sealed to.

    A path is looked up at each request's own origin. An absolute URL serves one origin only: that of the first request
    that is sealed.

    Args:
        key_url: an absolute path, an absolute URL, or None for EHBP's well-known path.

    Raises:
        TypeError: `key_url` is not a string.
        ValueError: it is neither an absolute path nor an absolute URL, or has a part that is never sent or cannot be.
    """

    def __init__(self, key_url: str | None) -> None:
        self._key_url = KEY_CONFIG_PATH if key_url is None else _checked(key_url)
        self._is_path = self._key_url.startswith("/")
        self._path = place.normalised_path(urlsplit(self._key_url).path.encode())
        self._prefix = _prefix_of(self._path)
        self._lock = threading.Lock()
        self._served: str | None = None

    def url_for(self, request: http.Request) -> http.URL:
        """Return the address of the key that `request` is sealed to."""
        if self._is_path:
            return request.url.join(self._key_url).copy_with(userinfo=b"", fragment=None)
        return request.url.join(self._key_url)

    def server_of(self, request: http.Request) -> object:
        """Return what tells one server from another: its origin, its names in the request, and `key_url`.

        Raises:
            SealedTransportError: the key is another origin's, or would come over a connection that anybody can change.
        """
        self._require_served(request)
        names = (request.headers.get("Host"), request.extensions.get("sni_hostname"))
        return (_origin(request.url), names, self._key_url)

    def serves(self, request: http.Request) -> bool:
        """Return whether `request` may be sealed to the keys that are here."""
        try:
            self._require_served(request)
        except SealedTransportError:
            return False
        return True

    def is_asked_by(self, request: http.Request) -> bool:
        """Return whether `request` is itself for a key. Servers answer it unsealed, wherever else they seal."""
        return place.normalised_path(request.url.raw_path.partition(b"?")[0]) == self._path and self.serves(request)

    def bind(self, request: http.Request) -> None:
        """Have the keys serve the origin of `request` alone, if they come from a URL. Call this before it is sealed.

        Raises:
            SealedTransportError: they serve another one.
        """
        if self._is_path:
            return
        with self._lock:
            if self._served is None:
                self._served = _origin(request.url)
        self._require_served(request)

    def target_of(self, request: http.Request) -> bytes:
        """Return the target that the sealed head of `request` names, below the prefix of the key's URL."""
        sent: bytes | str = request.extensions.get("target", request.url.raw_path)
        path, _, query = (sent.encode() if isinstance(sent, str) else sent).partition(b"?")
        return sealed_target(place.below(self._prefix, place.target(path, query)))

    def request_for(
        self, library: Library, request: http.Request, *, past_caches: bool, most_s: float | None
    ) -> http.Request:
        """Return the request for the key that `request` is sealed to.

        It carries none of the caller's headers except `Host`, which says what server is meant: no credentials, no
        cookies. It has a `User-Agent` of its own, because firewalls refuse requests that have none.

        Args:
            library: httpx or httpx2.
            request: the caller's request.
            past_caches: whether caches on the way must ask the server. They may hold a key that the server refuses.
            most_s: the limit of each timeout, in seconds; shorter ones of the caller stay. None for no limit.
        """
        url = self.url_for(request)
        headers = {"Accept": KEY_CONFIG_MEDIA_TYPE, "Accept-Encoding": "identity", "User-Agent": _USER_AGENT}
        extensions = {"timeout": _capped(request.extensions.get("timeout", {}), most_s)}
        if _origin(url) == _origin(request.url):
            if "Host" in request.headers:
                headers["Host"] = request.headers["Host"]
            if "sni_hostname" in request.extensions:
                extensions["sni_hostname"] = request.extensions["sni_hostname"]
        if past_caches:
            headers["Cache-Control"] = "no-cache"
        return library.Request("GET", url, headers=headers, extensions=extensions)

    def _require_served(self, request: http.Request) -> None:
        if self._is_path:
            return
        origin = _origin(request.url)
        if self._served not in (None, origin):
            raise SealedTransportError(
                f"key_url {self._key_url!r} serves requests to {self._served}, so nothing was sent to {origin}: "
                "use another client with a key_url of its own, or give a path, which is looked up at each origin"
            )
        if request.url.scheme == "https" and self._key_url.startswith("http:"):
            raise SealedTransportError(
                f"key_url {self._key_url!r} must be https as the requests to {origin} are: over plain http anybody on "
                "the way can replace the key; nothing was sent"
            )


def _checked(key_url: str) -> str:
    if not isinstance(key_url, str):
        raise TypeError(f"key_url must be a str, not {key_url!r} ({type(key_url).__name__})")
    if not key_url.isprintable():
        raise ValueError(f"key_url must have no control characters: {key_url!r}")
    try:
        parts = urlsplit(key_url)
        _ = parts.port  # raises a ValueError if there is none of that number
    except ValueError as error:
        raise ValueError(f"key_url cannot be read: {error}: {key_url!r}") from None
    is_url = parts.scheme in ("http", "https") and is_host(parts.hostname or "")
    if not is_url and not (key_url.startswith("/") and not parts.netloc):
        raise ValueError(
            "key_url must be an absolute path such as '/team-a/.well-known/hpke-keys', or an https URL, "
            f"not {key_url!r}"
        )
    if parts.fragment or "@" in parts.netloc:
        raise ValueError("key_url must have neither a fragment nor credentials: they would not be sent")
    return key_url


def _prefix_of(path: bytes) -> bytes:
    """Return the path of the server whose key is at `path`; nothing if that tells none."""
    key_path = KEY_CONFIG_PATH.encode()
    return path.removesuffix(key_path) if path.endswith(key_path) else b""


def _origin(url: http.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _capped(timeouts: dict[str, float | None], most_s: float | None) -> dict[str, float | None]:
    if most_s is None:
        return timeouts
    names = ("connect", "read", "write", "pool")
    return {name: min(most_s, own) if (own := timeouts.get(name)) is not None else most_s for name in names}
