"""One request through a sealing transport, without any input or output: what to do next, step by step.

Both drivers, the sync and the async one, carry out the steps of the same exchange.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from server_keys._native import InvalidPublicKeyError, RequestSealer, ResponseOpener
from server_keys._sealing.protocol import ENCAPSULATED_KEY_HEADER, RESPONSE_NONCE_HEADER, bytes_of_header
from server_keys.client.key_cache import KeyCache
from server_keys.client.published_key import (
    is_for_the_caller,
    key_in_response,
    key_request,
    key_url,
    lifetime_s,
    server_of,
)
from server_keys.client.refusal import is_key_mismatch
from server_keys.client.steps import Close, Library, Outcome, Read, Send, Steps, Verify
from server_keys.errors import (
    KeyConfigurationError,
    KeyRejectedError,
    SealedTransportError,
    UnsealedResponseError,
)

if TYPE_CHECKING:
    import httpx2 as http

# Frames are sealed and opened one at a time, so a server never holds more of a long body than this.
_FRAME_PLAINTEXT_BYTES = 64 * 1024
# The longest key configuration or problem that is read. A hostile one may have no end.
_MOST_UNSEALED_BYTES = 64 * 1024


class Exchange:
    """Takes one request to its response, sealed.

    Args:
        library: httpx or httpx2.
        cache: the servers' keys.
        request: the library's request.
        body: the request's body.
        max_frame_bytes: the longest frame that a response may have, tag included.
    """

    def __init__(
        self, library: Library, cache: KeyCache, request: http.Request, body: bytes, max_frame_bytes: int
    ) -> None:
        self._library = library
        self._cache = cache
        self._request = request
        self._body = body
        self._max_frame_bytes = max_frame_bytes
        self._server = server_of(request)
        self._key_url = key_url(request)

    def steps(self) -> Steps[Outcome]:
        """Yield the steps and return the outcome.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyRejectedError: the user refused its key.
            UnsealedResponseError: a success is not sealed, the response is a redirect, or an unsealed 422 is too long.
            SealedTransportError: the request asks for another protocol, such as WebSocket, which has no sealed form.
        """
        self._refuse_upgrade()
        if not self._body:
            return Outcome((yield Send(self._request)), None)
        for is_retry in (False, True):
            key = yield from self._key(past_caches=is_retry)
            if not isinstance(key, bytes):
                return Outcome(key, None)
            sealer = self._sealer(key)
            response = yield Send(self._sealed_request(sealer))
            yield from self._refuse_redirect(response)
            if RESPONSE_NONCE_HEADER in response.headers:
                return Outcome(response, (yield from self._opener(sealer, response)))
            yield from self._refuse_success(response)
            response, is_mismatch = yield from self._read_refusal(response)
            if is_retry or not is_mismatch:
                break
            self._cache.discard(self._server, key)
        return Outcome(response, None)

    def _refuse_upgrade(self) -> None:
        if "Upgrade" in self._request.headers:
            raise SealedTransportError(
                f"{self._shown} asks for {self._request.headers['Upgrade']!r}, which has no sealed form: nothing was "
                "sent; use a client without this transport if everybody on the way may read it"
            )

    def _key(self, *, past_caches: bool) -> Steps[bytes | http.Response]:
        """Return the server's key, or the response that tells the caller to ask later."""
        known = self._cache.get(self._server)
        if known is not None:
            return known
        ticket = self._cache.draw_ticket()
        response: http.Response = yield Send(key_request(self._library, self._request, past_caches=past_caches))
        if is_for_the_caller(response):
            return response
        key = yield from self._published_key(response)
        self._cache.put(self._server, key, lifetime_s(response.headers), ticket)
        return key

    def _published_key(self, response: http.Response) -> Steps[bytes]:
        url = self._key_url
        config = yield Read(response, _MOST_UNSEALED_BYTES)
        if config is None:
            raise KeyConfigurationError(f"{url} answered with more than {_MOST_UNSEALED_BYTES} bytes instead of a key")
        public_key = key_in_response(url, response, config)
        verdict = yield Verify(public_key)
        if verdict is not None and verdict is not True:
            raise KeyRejectedError(f"verify_key refused the key {public_key.hex()} that {url} published: {verdict!r}")
        return public_key

    def _sealer(self, public_key: bytes) -> RequestSealer:
        try:
            return RequestSealer(public_key)
        except InvalidPublicKeyError as error:
            raise KeyConfigurationError(f"{self._key_url} published a key that cannot be used: {error}") from None

    def _sealed_request(self, sealer: RequestSealer) -> http.Request:
        request = self._request
        headers = self._library.Headers(request.headers)
        for name in ("Content-Length", "Transfer-Encoding"):
            headers.pop(name, None)
        headers[ENCAPSULATED_KEY_HEADER] = sealer.encapsulated_key.hex()
        # Sealed bytes do not shrink, and a proxy that compressed them would leave nothing to open.
        headers["Accept-Encoding"] = "identity"
        view = memoryview(self._body)
        frames = (
            sealer.seal(bytes(view[start : start + _FRAME_PLAINTEXT_BYTES]))
            for start in range(0, len(view), _FRAME_PLAINTEXT_BYTES)
        )
        return self._library.Request(
            request.method, request.url, headers=headers, content=b"".join(frames), extensions=request.extensions
        )

    def _refuse_redirect(self, response: http.Response) -> Steps[None]:
        if response.has_redirect_location:
            yield Close(response)
            raise UnsealedResponseError(
                f"{self._shown} was sealed, but redirected by a {response.status_code}: anybody on the way can forge "
                "that and so choose where the body is sent next; use the URL that the body is meant for"
            )

    def _refuse_success(self, response: http.Response) -> Steps[None]:
        if response.is_success:
            yield Close(response)
            raise UnsealedResponseError(
                f"{self._shown} was sealed, but answered with status {response.status_code} and no "
                f"{RESPONSE_NONCE_HEADER}: the server does not protect this path, or somebody else has answered"
            )

    def _opener(self, sealer: RequestSealer, response: http.Response) -> Steps[ResponseOpener]:
        nonce, *others = response.headers.get_list(RESPONSE_NONCE_HEADER)
        try:
            if others:
                raise ValueError(f"it is there {len(others) + 1} times")
            return sealer.response_opener(bytes_of_header(nonce), max_frame_bytes=self._max_frame_bytes)
        except ValueError as error:
            yield Close(response)
            raise UnsealedResponseError(f"the header {RESPONSE_NONCE_HEADER} cannot be used: {error}") from None

    def _read_refusal(self, response: http.Response) -> Steps[tuple[http.Response, bool]]:
        """Return the response, to be read by the caller, and whether it refuses the key."""
        if response.status_code != 422:
            return response, False
        body = yield Read(response, _MOST_UNSEALED_BYTES)
        if body is None:
            raise UnsealedResponseError(
                f"{self._shown} was sealed, but answered with status 422 and more than {_MOST_UNSEALED_BYTES} bytes "
                "that are not sealed: they were not read"
            )
        unread = self._library.Response(
            response.status_code,
            headers=response.headers,
            stream=self._library.ByteStream(body),
            extensions=response.extensions,
        )
        return unread, is_key_mismatch(response, body, _MOST_UNSEALED_BYTES)

    @property
    def _shown(self) -> str:
        """The request's method and URL, without the parts of the URL that may be secret."""
        url = self._request.url.copy_with(userinfo=b"", query=None, fragment=None)
        return f"{self._request.method} {url}"
