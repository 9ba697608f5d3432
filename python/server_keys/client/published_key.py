"""The key that a server publishes: its address, the request for it, and what the answer says."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from server_keys._sealing.protocol import KEY_CONFIG_MEDIA_TYPE, KEY_CONFIG_PATH, public_key_of
from server_keys.errors import KeyConfigurationError

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.steps import Library

_DIRECTIVE = re.compile(r"([\w-]+)(?:=\"?([^\",]*)\"?)?")
_EXTENSIONS = ("timeout", "sni_hostname")


def server_of(request: http.Request) -> str:
    """Return what tells one server from another: its origin, and the names by which the request addresses it there."""
    url = request.url
    names = (request.headers["Host"], request.extensions.get("sni_hostname"))
    return f"{url.scheme}://{url.netloc.decode('ascii')} {names}"


def key_url(request: http.Request) -> http.URL:
    """Return the address of the key that `request` is sealed to."""
    return request.url.copy_with(raw_path=KEY_CONFIG_PATH.encode(), fragment=None, userinfo=b"")


def key_request(library: Library, request: http.Request, *, past_caches: bool) -> http.Request:
    """Return the request for the key that `request` is sealed to.

    It carries none of the caller's headers except `Host`, which says what server is meant: no credentials, no cookies.

    Args:
        library: httpx or httpx2.
        request: the caller's request.
        past_caches: whether caches on the way must ask the server. They may hold a key that the server refuses.
    """
    extensions = {name: request.extensions[name] for name in _EXTENSIONS if name in request.extensions}
    headers = {"Accept": KEY_CONFIG_MEDIA_TYPE, "Host": request.headers["Host"]}
    if past_caches:
        headers["Cache-Control"] = "no-cache"
    return library.Request("GET", key_url(request), headers=headers, extensions=extensions)


def is_for_the_caller(response: http.Response) -> bool:
    """Return whether the answer says nothing about the key: a gateway or the server has no time.

    Callers know how to wait for it.
    """
    return response.status_code == 429 or response.is_server_error


def key_in_response(url: http.URL, response: http.Response, body: bytes) -> bytes:
    """Return the public key (32 bytes) that a server published.

    Raises:
        KeyConfigurationError: the response is not a key configuration that can be used.
    """
    status = response.status_code
    if status != 200:
        hint = (
            "it must be open to everybody, because no credentials are sent there"
            if status in (401, 403)
            else "does it speak EHBP?"
        )
        raise KeyConfigurationError(f"{url} answered with status {status} instead of the server's key: {hint}")
    content_type = response.headers.get("Content-Type")
    if content_type != KEY_CONFIG_MEDIA_TYPE:
        raise KeyConfigurationError(f"{url} answered with {content_type!r} instead of {KEY_CONFIG_MEDIA_TYPE!r}")
    try:
        return public_key_of(body)
    except ValueError as error:
        raise KeyConfigurationError(f"{url} published {error}") from None


def lifetime_s(headers: http.Headers) -> float:
    """Return for how many seconds a fetched key may be used: its max-age less the time that caches have held it.

    Without a max-age the server says nothing of a rotation, and the key is kept until the server refuses it.
    """
    directives = dict(_DIRECTIVE.findall(headers.get("Cache-Control", "").lower()))
    if "no-store" in directives or "no-cache" in directives:
        return 0.0
    if "max-age" not in directives:
        return math.inf
    max_age = directives["max-age"].strip()
    if not max_age.isdecimal():
        # RFC 9111, section 4.2.1: not fresh.
        return 0.0
    age = headers.get("Age", "")
    held_s = _delta_seconds(age) if age.isdecimal() else 0
    return float(max(_delta_seconds(max_age) - held_s, 0))


def _delta_seconds(digits: str) -> int:
    # RFC 9111, section 1.2.2: a number that is too large to represent counts as 2^31.
    return int(digits) if len(digits) <= 10 else 2**31
