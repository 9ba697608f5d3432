"""One request through a sealing transport, without any input or output: what to do next, step by step.

Both drivers, the sync and the async one, carry out the steps of the same generator.
"""

import json
import zlib
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from server_keys._native import FrameTooLargeError, InvalidPublicKeyError, RequestSealer, ResponseOpener
from server_keys._sealing.protocol import (
    ENCAPSULATED_KEY_HEADER,
    KEY_CONFIG_MEDIA_TYPE,
    KEY_CONFIG_PATH,
    KEY_MISMATCH_PROBLEM,
    RESPONSE_NONCE_HEADER,
    bytes_of_header,
)
from server_keys.client.key_cache import KeyCache, key_in_response, lifetime_s
from server_keys.errors import (
    KeyConfigurationError,
    KeyRejectedError,
    SealedTransportError,
    UnsealedResponseError,
)

# One frame is sealed and opened at a time: a server never holds more of a long body than this.
_FRAME_PLAINTEXT_BYTES = 64 * 1024
# Of a response that is not sealed: a key configuration or a problem. A hostile one is not read to its end.
_MOST_UNSEALED_BYTES = 64 * 1024
_KEY_REQUEST_EXTENSIONS = ("timeout", "sni_hostname")


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; the result is the response, its body not read."""

    request: Any


@dataclass(frozen=True, slots=True)
class Read:
    """Read a response's body and close the response; the result is the body, None if it is longer than `most_bytes`."""

    response: Any
    most_bytes: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close a response."""

    response: Any


@dataclass(frozen=True, slots=True)
class Verify:
    """Ask the user's `verify_key`; the result is what it returned."""

    public_key: bytes


@dataclass(frozen=True, slots=True)
class OpenedResponse:
    """The outcome: a response, and what opens its body; `opener` is None for one that passes through as it is."""

    response: Any
    opener: ResponseOpener | None


Steps = Generator[Send | Read | Close | Verify, Any, OpenedResponse]


def exchange(http: Any, cache: KeyCache, request: Any, body: bytes, max_frame_bytes: int) -> Steps:
    """Yield the steps that take `request` to its response, sealed; return the outcome.

    Args:
        http: the library, httpx or httpx2.
        cache: the servers' keys.
        request: the library's request, its body read.
        body: that body.
        max_frame_bytes: the longest frame of the response that is taken.

    Raises:
        KeyConfigurationError: the server publishes no key that can be used.
        KeyRejectedError: the user refused its key.
        UnsealedResponseError: a success is not sealed, the response is a redirect, or an unsealed 422 is too long.
        SealedTransportError: the request asks for another protocol, such as WebSocket, which has no sealed form.
    """
    if "Upgrade" in request.headers:
        raise SealedTransportError(
            f"{request.method} {_shown(request.url)} asks for {request.headers['Upgrade']!r}, which has no sealed "
            "form: nothing was sent; use a client without this transport if it may be read on its way"
        )
    if not body:
        return OpenedResponse((yield Send(request)), None)
    server = _server_of(request)
    for is_retry in (False, True):
        public_key = cache.get(server)
        if public_key is None:
            ticket = cache.draw_ticket()
            response = yield Send(_key_request(http, request, past_caches=is_retry))
            if response.status_code == 429 or response.is_server_error:
                # Nothing is wrong with the key: a gateway or the server has no time. Callers know how to wait for it.
                return OpenedResponse(response, None)
            public_key = yield from _published_key(_key_url(request), response)
            may_be_kept_s = lifetime_s(response.headers.get("Cache-Control"), response.headers.get("Age"))
            cache.put(server, public_key, may_be_kept_s, ticket)
        sealer = _sealer(public_key, request)
        response = yield Send(_sealed_request(http, request, sealer, body))
        if response.has_redirect_location:
            yield Close(response)
            raise UnsealedResponseError(
                f"{request.method} {_shown(request.url)} was sealed, but redirected by a {response.status_code}: "
                "who forges that chooses where the body is sent next, so use the URL that it is meant for"
            )
        if RESPONSE_NONCE_HEADER in response.headers:
            return OpenedResponse(response, (yield from _opener(sealer, response, max_frame_bytes)))
        if response.is_success:
            yield Close(response)
            raise UnsealedResponseError(
                f"{request.method} {_shown(request.url)} was sealed, but answered with status {response.status_code} "
                f"and no {RESPONSE_NONCE_HEADER}: the server does not protect this path, or somebody else has answered"
            )
        if response.status_code != 422:
            break
        body_read = yield Read(response, _MOST_UNSEALED_BYTES)
        if body_read is None:
            raise UnsealedResponseError(
                f"{request.method} {_shown(request.url)} was sealed, but answered with status 422 and more than "
                f"{_MOST_UNSEALED_BYTES} bytes that are not: they were not read"
            )
        response = _with_body(http, response, body_read)
        if is_retry or _problem_type(response, body_read) != KEY_MISMATCH_PROBLEM:
            break
        cache.discard(server, public_key)
    return OpenedResponse(response, None)


def _key_request(http: Any, request: Any, *, past_caches: bool) -> Any:
    # None of the caller's headers but the one that says which server is meant: no credentials, no cookies.
    extensions = {name: request.extensions[name] for name in _KEY_REQUEST_EXTENSIONS if name in request.extensions}
    headers = {"Accept": KEY_CONFIG_MEDIA_TYPE, "Host": request.headers["Host"]}
    if past_caches:
        # One of them may still hold the key that the server has just refused.
        headers["Cache-Control"] = "no-cache"
    return http.Request("GET", _key_url(request), headers=headers, extensions=extensions)


def _published_key(url: Any, response: Any) -> Generator[Any, Any, bytes]:
    config = yield Read(response, _MOST_UNSEALED_BYTES)
    if config is None:
        raise KeyConfigurationError(f"{url} answered with more than {_MOST_UNSEALED_BYTES} bytes instead of a key")
    public_key = key_in_response(str(url), response.status_code, response.headers.get("Content-Type"), config)
    verdict = yield Verify(public_key)
    if verdict is not None and verdict is not True:
        raise KeyRejectedError(f"verify_key refused the key {public_key.hex()} that {url} published: {verdict!r}")
    return public_key


def _key_url(request: Any) -> Any:
    return request.url.copy_with(raw_path=KEY_CONFIG_PATH.encode(), fragment=None, userinfo=b"")


def _shown(url: Any) -> str:
    """Return `url` without what may be secret in it."""
    return str(url.copy_with(userinfo=b"", query=None, fragment=None))


def _sealer(public_key: bytes, request: Any) -> RequestSealer:
    try:
        return RequestSealer(public_key)
    except InvalidPublicKeyError as error:
        raise KeyConfigurationError(f"{_key_url(request)} published a key that cannot be used: {error}") from None


def _server_of(request: Any) -> str:
    """Return what tells one server from another: its origin, and the names by which it is addressed there."""
    url = request.url
    names = (request.headers["Host"], request.extensions.get("sni_hostname"))
    return f"{url.scheme}://{url.netloc.decode('ascii')} {names}"


def _sealed_request(http: Any, request: Any, sealer: RequestSealer, body: bytes) -> Any:
    headers = http.Headers(request.headers)
    for name in ("Content-Length", "Transfer-Encoding"):
        headers.pop(name, None)
    headers[ENCAPSULATED_KEY_HEADER] = sealer.encapsulated_key.hex()
    # Sealed bytes do not shrink, and a proxy that compressed them would leave nothing to open.
    headers["Accept-Encoding"] = "identity"
    view = memoryview(body)
    frames = (
        sealer.seal(bytes(view[start : start + _FRAME_PLAINTEXT_BYTES]))
        for start in range(0, len(body), _FRAME_PLAINTEXT_BYTES)
    )
    return http.Request(
        request.method, request.url, headers=headers, content=b"".join(frames), extensions=request.extensions
    )


def _opener(sealer: RequestSealer, response: Any, max_frame_bytes: int) -> Generator[Any, Any, ResponseOpener]:
    nonce, *others = response.headers.get_list(RESPONSE_NONCE_HEADER)
    try:
        if others:
            raise ValueError(f"it is there {len(others) + 1} times")
        return sealer.response_opener(bytes_of_header(nonce), max_frame_bytes=max_frame_bytes)
    except (ValueError, FrameTooLargeError) as error:
        yield Close(response)
        raise UnsealedResponseError(f"the header {RESPONSE_NONCE_HEADER} cannot be used: {error}") from None


def _with_body(http: Any, response: Any, body: bytes) -> Any:
    """Return `response` with its body, as it was transferred, to be read again."""
    return http.Response(
        response.status_code, headers=response.headers, stream=http.ByteStream(body), extensions=response.extensions
    )


def _problem_type(response: Any, body: bytes) -> object:
    """Return the type of the problem (RFC 9457) that the body is, whatever media type proxies gave it, else None."""
    try:
        if response.headers.get("Content-Encoding", "").lower() in ("gzip", "deflate"):
            # By its head it is seen which of them it is. No more comes out than is asked for: it may be a bomb.
            body = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS).decompress(body, _MOST_UNSEALED_BYTES)
        problem = json.loads(body)
    except (ValueError, RecursionError, zlib.error):
        return None
    return problem.get("type") if isinstance(problem, dict) else None
