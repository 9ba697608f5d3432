"""One request through a sealing transport, step by step: when it is sealed, when it is sent again, what is refused.

The exchange itself does no input and no output. Both drivers, the sync and the async one, carry out its steps.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from server_keys._sealing.protocol import RESPONSE_NONCE_HEADER
from server_keys._sealing.wire_v1 import RequestHead
from server_keys.client.body_headers import of_sealed_request, values_of
from server_keys.client.key_fetch import Key
from server_keys.client.key_steps import KeySteps, Servers
from server_keys.client.request_body import RequestBody
from server_keys.client.steps import Close, Library, Outcome, Read, Send, Steps
from server_keys.client.unsealed import MOST_UNSEALED_BYTES, is_key_mismatch
from server_keys.client.wires import Sealed, SealedAsEhbp, SealedAsV1, unusable_nonce
from server_keys.errors import KeyNotPublishedError, SealedTransportError, StatusMismatchError, UnsealedResponseError

if TYPE_CHECKING:
    import httpx2 as http

    from server_keys.client.wires import Opener

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
        servers: where the servers' keys are kept and found.
        request: the library's request.
        body: the request's body, read ahead.
        max_frame_bytes: the longest frame that a response may have, tag included.
    """

    def __init__(
        self, library: Library, servers: Servers, request: http.Request, body: RequestBody, max_frame_bytes: int
    ) -> None:
        self._library = library
        self._servers = servers
        self._cache, self._location, self._checks = servers
        self._request = request
        self._body = body
        self._max_frame_bytes = max_frame_bytes
        self._has_asked_anew = False

    def steps(self) -> Steps[Outcome]:
        """Yield the steps and return the outcome.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyRejectedError: the user refused its key.
            UnsealedResponseError: a success is not sealed, a body would be redirected, or an unsealed refusal is too
                long.
            StatusMismatchError: the response has another status than the server sealed.
            SealedTransportError: the request asks for another protocol, such as WebSocket, which has no sealed form, is
                for another server than the one whose key is at `key_url`, is sent by a check of the key through its own
                client, or was refused and cannot be sent again.
        """
        self._refuse_upgrade()
        if self._body.is_empty and not self._may_be_sealed_without_body():
            return (yield from self._as_it_is())
        keys = KeySteps(self._library, self._servers, self._request)
        tries = 0
        while True:
            key = yield from self._key(keys)
            if key is None:
                return (yield from self._as_it_is())
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

    def _may_be_sealed_without_body(self) -> bool:
        """Return whether this request, which has no body, is sealed if the server offers version 1."""
        # Servers answer OPTIONS unsealed, because browsers ask so before they know anything of a key.
        if self._request.method == "OPTIONS" or not self._checks.can_use_v1:
            return False
        if self._location.is_asked_by(self._request):
            return False
        return self._checks.require_v1 or self._location.serves(self._request)

    def _as_it_is(self, *, is_alone: bool = False) -> Steps[Outcome]:
        """Send a request without a body unsealed. In plain EHBP it has no other form."""
        return Outcome((yield Send(self._request, is_alone)))

    def _key(self, keys: KeySteps) -> Steps[Key | http.Response | None]:
        """Return what `KeySteps.key` returns, or None for a request that leaves as it is."""
        if not self._body.is_empty:
            return (yield from keys.key(afresh=not self._body.can_repeat))
        try:
            key = yield from keys.key()
        except KeyNotPublishedError:
            # Anybody can hide a key. Who hides that of a server which offered version 1 gets nothing unsealed for it.
            if self._checks.need_an_answer or self._cache.offers_v1(keys.server):
                raise
            return None
        return None if _is_plain(key) else key

    def _alone(self, keys: KeySteps, refusal: Outcome) -> Steps[Outcome]:
        """Return the outcome of fetching the key and sending the request over one connection, which nobody else uses.

        If the server is too busy to tell its key, the outcome is `refusal`.
        """
        key = yield from keys.own_key()
        if not isinstance(key, Key):
            yield Close(key)
            return refusal
        if self._body.is_empty and _is_plain(key):
            return (yield from self._as_it_is(is_alone=True))
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
        self._location.bind(self._request)
        sealed = self._sealed(key)
        is_opened = False
        try:
            response: http.Response = yield Send(self._sealed_request(sealed), is_alone)
            yield from self._refuse_redirect(response)
            if nonces := values_of(response.headers, _RESPONSE_NONCE_HEADER):
                opener = yield from self._opener(sealed, response, nonces)
                is_opened = True
                return Outcome(response, opener, partial(self._cache.doubt, server, key)), False
            yield from self._refuse_unsealed(response, is_v1=sealed.is_v1)
            response, refuses_key = yield from self._read_refusal(response, is_v1=sealed.is_v1)
            yield Close(self._body)
            return Outcome(response), refuses_key
        finally:
            # Erase it here: tracebacks and paused generators can hold it for long.
            if not is_opened or not self._body.is_on_its_way:
                sealed.erase()
            if not is_opened:
                self._cache.doubt(server, key)

    def _refuse_upgrade(self) -> None:
        if protocols := values_of(self._request.headers, b"upgrade"):
            raise SealedTransportError(
                f"{self._shown} asks for {', '.join(protocols)!r}, which has no sealed form: nothing was "
                "sent; use a client without this transport if everybody on the way may read it"
            )

    def _sealed(self, key: Key) -> Sealed:
        if key.xwing is None:
            return SealedAsEhbp(key.keys.x25519)
        target = self._location.target_of(self._request)
        head = RequestHead(self._request.method.encode(), target, has_body=not self._body.is_empty)
        return SealedAsV1(key.xwing, head)

    def _sealed_request(self, sealed: Sealed) -> http.Request:
        request = self._request
        return self._library.Request(
            request.method,
            request.url,
            headers=of_sealed_request(request.headers, sealed.header, self._body.framing(sealed)),
            stream=self._body.sealed_by(sealed),
            extensions=request.extensions,
        )

    def _require_repeatable(self) -> None:
        if not self._body.can_repeat:
            raise SealedTransportError(
                f"{self._shown} was refused because the server has replaced its key, and cannot be sent again, because "
                "its body can be read only once: make the request anew, or give it bytes or a file that can seek"
            )

    def _refuse_redirect(self, response: http.Response) -> Steps[None]:
        if response.has_redirect_location and not self._body.is_empty:
            yield Close(response)
            raise UnsealedResponseError(
                f"{self._shown} was sealed, but redirected by a {response.status_code}: anybody on the way can forge "
                "that and so choose where the body is sent next; use the URL that the body is meant for"
            )

    def _refuse_unsealed(self, response: http.Response, *, is_v1: bool) -> Steps[None]:
        """Refuse an unsealed success. In version 1 everything is one but an error and a redirect.

        A forged 304, say, would have a stale copy taken for the answer.
        """
        is_success = response.is_success
        if is_v1:
            is_success = response.status_code < 400 and not response.has_redirect_location
        if is_success:
            yield Close(response)
            raise UnsealedResponseError(
                f"{self._shown} was sealed, but answered with status {response.status_code} and no "
                f"{RESPONSE_NONCE_HEADER}: the server does not protect this path, or somebody else has answered"
            )

    def _opener(self, sealed: Sealed, response: http.Response, nonces: list[str]) -> Steps[Opener]:
        nonce, *others = nonces
        try:
            if others:
                raise unusable_nonce(f"it is there {len(others) + 1} times")
            return sealed.opener(nonce, response.status_code, max_frame_bytes=self._max_frame_bytes)
        except (StatusMismatchError, UnsealedResponseError):
            yield Close(response)
            raise

    def _read_refusal(self, response: http.Response, *, is_v1: bool) -> Steps[tuple[http.Response, bool]]:
        """Return the response, which the caller can still read, and whether it refuses the key.

        A server that knows plain EHBP alone refuses version 1 with a 400, and a proxy may have rewritten a refusal of
        the key. So once an exchange takes either for one.
        """
        may_come_from_older = is_v1 and self._body.can_repeat and not self._has_asked_anew
        if response.status_code != 422 and not (response.status_code == 400 and may_come_from_older):
            return response, False
        body = yield Read(response, MOST_UNSEALED_BYTES)
        if body is None:
            raise UnsealedResponseError(
                f"{self._shown} was sealed, but answered with status {response.status_code} and more than "
                f"{MOST_UNSEALED_BYTES} bytes that are not sealed: they were not read"
            )
        unread = self._library.Response(
            response.status_code,
            headers=response.headers,
            stream=self._library.ByteStream(body),
            extensions=response.extensions,
        )
        if is_key_mismatch(response, body):
            return unread, True
        self._has_asked_anew = self._has_asked_anew or may_come_from_older
        return unread, may_come_from_older

    @property
    def _shown(self) -> str:
        """The request's method and URL, without the parts of the URL that may be secret."""
        url = self._request.url.copy_with(userinfo=b"", query=None, fragment=None)
        return f"{self._request.method} {url}"


def _is_plain(key: Key | http.Response) -> bool:
    """Return whether a server's key is for plain EHBP."""
    return isinstance(key, Key) and key.xwing is None
