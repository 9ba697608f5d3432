"""One request through a sealing transport, step by step: when it is sealed, when it is sent again, what is refused.

The exchange itself does no input and no output. Both drivers, the sync and the async one, carry out its steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from server_keys._native import RequestSealer, ResponseOpener
from server_keys._sealing.protocol import RESPONSE_NONCE_HEADER, bytes_of_header
from server_keys.client.body_headers import of_sealed_request, values_of
from server_keys.client.key_cache import KeyCache
from server_keys.client.key_fetch import Key
from server_keys.client.key_location import KeyLocation
from server_keys.client.key_steps import KeySteps
from server_keys.client.request_body import RequestBody
from server_keys.client.steps import Close, Library, Outcome, Read, Send, Steps
from server_keys.client.unsealed import MOST_UNSEALED_BYTES, is_key_mismatch
from server_keys.errors import SealedTransportError, UnsealedResponseError

if TYPE_CHECKING:
    import httpx2 as http

_RESPONSE_NONCE_HEADER = RESPONSE_NONCE_HEADER.lower().encode()
# After the second refusal the request goes over a connection of its own, unless it waited so long before it was sent
# that its key was over.
_MOST_TRIES = 10
_LONG_WAIT_S = 1.0
# So often it goes over its own connection. Only what balances each request can bring it to another process there, and
# round robin comes back to the one that gave out the key.
_MOST_TRIES_ALONE = 3


class Exchange:
    """Takes one request to its response, sealed.

    Args:
        library: httpx or httpx2.
        cache: the servers' keys.
        location: where the servers publish them.
        request: the library's request.
        body: the request's body, read ahead.
        max_frame_bytes: the longest frame that a response may have, tag included.
    """

    def __init__(
        self,
        library: Library,
        cache: KeyCache,
        location: KeyLocation,
        request: http.Request,
        body: RequestBody,
        max_frame_bytes: int,
    ) -> None:
        self._library = library
        self._cache = cache
        self._location = location
        self._request = request
        self._body = body
        self._max_frame_bytes = max_frame_bytes

    def steps(self) -> Steps[Outcome]:
        """Yield the steps and return the outcome.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyRejectedError: the user refused its key.
            UnsealedResponseError: a success is not sealed, the response is a redirect, or an unsealed 422 is too long.
            SealedTransportError: the request asks for another protocol, such as WebSocket, which has no sealed form, is
                for another server than the one whose key is at `key_url`, is sent by `verify_key` through its own
                client, or was refused and cannot be sent again.
        """
        self._refuse_upgrade()
        if self._body.is_empty:
            return Outcome((yield Send(self._request)))
        keys = KeySteps(self._library, self._cache, self._location, self._request)
        tries = 0
        while True:
            key = yield from keys.key(afresh=not self._body.can_repeat)
            if not isinstance(key, Key):
                return Outcome(key)
            tries += 1
            outcome, refuses_key = yield from self._sealed_to(key, keys.server)
            if not refuses_key:
                return outcome
            self._cache.discard(keys.server, key)
            self._require_repeatable()
            if tries == _MOST_TRIES:
                return outcome
            if tries > 1 and not self._waited_too_long(key):
                return (yield from self._alone(keys, outcome))

    def _alone(self, keys: KeySteps, refusal: Outcome) -> Steps[Outcome]:
        """Return the outcome of fetching the key and sending the request over one connection, which nobody else uses.

        If the server is too busy to tell its key, the outcome is `refusal`.
        """
        key = yield from keys.own_key()
        if not isinstance(key, Key):
            yield Close(key)
            return refusal
        for _ in range(_MOST_TRIES_ALONE):
            outcome, refuses_key = yield from self._sealed_to(key, keys.server, is_alone=True)
            if not refuses_key:
                break
        return outcome

    def _waited_too_long(self, key: Key) -> bool:
        """Return whether the key's time ran out while it was fetched and the request waited for a free connection."""
        now = self._cache.now()
        return now >= key.fresh_until and now - key.asked_at >= _LONG_WAIT_S

    def _sealed_to(self, key: Key, server: object, *, is_alone: bool = False) -> Steps[tuple[Outcome, bool]]:
        """Return the outcome of the request sealed to `key`, and whether the server refuses the key."""
        sealer = RequestSealer(key.public_key)
        is_sealed = False
        try:
            response: http.Response = yield Send(self._sealed_request(sealer), is_alone)
            yield from self._refuse_redirect(response)
            if nonces := values_of(response.headers, _RESPONSE_NONCE_HEADER):
                opener = yield from self._opener(sealer, response, nonces)
                is_sealed = True
                return Outcome(response, opener, partial(self._cache.doubt, server, key)), False
            yield from self._refuse_success(response)
            response, refuses_key = yield from self._read_refusal(response)
            yield Close(self._body)
            return Outcome(response), refuses_key
        finally:
            # Erase it here: tracebacks and paused generators can hold it for long.
            if not is_sealed or not self._body.is_on_its_way:
                sealer.erase()
            if not is_sealed:
                self._cache.doubt(server, key)

    def _refuse_upgrade(self) -> None:
        if protocols := values_of(self._request.headers, b"upgrade"):
            raise SealedTransportError(
                f"{self._shown} asks for {', '.join(protocols)!r}, which has no sealed form: nothing was "
                "sent; use a client without this transport if everybody on the way may read it"
            )

    def _sealed_request(self, sealer: RequestSealer) -> http.Request:
        request = self._request
        return self._library.Request(
            request.method,
            request.url,
            headers=of_sealed_request(request.headers, sealer.encapsulated_key, self._body.sealed_length),
            stream=self._body.sealed_by(sealer),
            extensions=request.extensions,
        )

    def _require_repeatable(self) -> None:
        if not self._body.can_repeat:
            raise SealedTransportError(
                f"{self._shown} was refused because the server has replaced its key, and cannot be sent again, because "
                "its body can be read only once: make the request anew, or give it bytes or a file that can seek"
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

    def _opener(self, sealer: RequestSealer, response: http.Response, nonces: list[str]) -> Steps[ResponseOpener]:
        nonce, *others = nonces
        try:
            if others:
                raise ValueError(f"it is there {len(others) + 1} times")
            return sealer.response_opener(bytes_of_header(nonce), max_frame_bytes=self._max_frame_bytes)
        except ValueError as error:
            yield Close(response)
            raise UnsealedResponseError(f"the header {RESPONSE_NONCE_HEADER} cannot be used: {error}") from None

    def _read_refusal(self, response: http.Response) -> Steps[tuple[http.Response, bool]]:
        """Return the response, which the caller can still read, and whether it refuses the key."""
        if response.status_code != 422:
            return response, False
        body = yield Read(response, MOST_UNSEALED_BYTES)
        if body is None:
            raise UnsealedResponseError(
                f"{self._shown} was sealed, but answered with status 422 and more than {MOST_UNSEALED_BYTES} bytes "
                "that are not sealed: they were not read"
            )
        unread = self._library.Response(
            response.status_code,
            headers=response.headers,
            stream=self._library.ByteStream(body),
            extensions=response.extensions,
        )
        return unread, is_key_mismatch(response, body)

    @property
    def _shown(self) -> str:
        """The request's method and URL, without the parts of the URL that may be secret."""
        url = self._request.url.copy_with(userinfo=b"", query=None, fragment=None)
        return f"{self._request.method} {url}"
