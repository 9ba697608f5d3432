"""The steps by which an exchange gets the key of its server: known already, fetched by itself, or by somebody else."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, cast

from server_keys._native import InvalidPublicKeyError, RequestSealer
from server_keys.client.key_cache import Follow, KeyCache, Known, Lead
from server_keys.client.key_fetch import Key, KeyFetch
from server_keys.client.key_location import KeyLocation
from server_keys.client.published_key import key_in_response, lifetime_s, says_try_later
from server_keys.client.steps import Close, Library, Read, Send, Steps, Verify, Wait
from server_keys.client.unsealed import MOST_UNSEALED_BYTES
from server_keys.errors import KeyConfigurationError, KeyRejectedError, SealedTransportError

if TYPE_CHECKING:
    import httpx2 as http

# A fetch that takes longer may never end, so one of the requests that wait begins another one.
_PATIENCE_S = 5.0
# A request that has waited this many times fetches the key for itself.
_MOST_PATIENCES = 3
# While the known key still serves, a slow fetch of the next one must not hold a request up.
_RENEWAL_TIMEOUT_S = 2.0
# The fetches whose keys `verify_key` is checking in this context: a request that it sends must not wait for them.
_verified_now: ContextVar[tuple[KeyFetch, ...]] = ContextVar("verified_now", default=())


class KeySteps:
    """Gets the key that `request` is sealed to. If many requests come at once, one fetches it and the others wait.

    If that one fails or is cancelled, each of the others asks again: the first of them fetches. So nobody gets another
    request's error.

    Args:
        library: httpx or httpx2.
        cache: the servers' keys.
        location: where the servers publish them.
        request: the caller's request.
    """

    def __init__(self, library: Library, cache: KeyCache, location: KeyLocation, request: http.Request) -> None:
        self.server: object = location.server_of(request)
        self._library = library
        self._cache = cache
        self._location = location
        self._request = request

    def key(self, *, afresh: bool = False) -> Steps[Key | http.Response]:
        """Return the key, or the response that tells the caller to ask later.

        Args:
            afresh: ask for the key even if one is known. While nobody answers, the known one serves.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyRejectedError: the user refused its key.
            SealedTransportError: `verify_key` sends this request, which would wait for its verdict.
        """
        began = self._cache.now()
        while True:
            match self._cache.ask(self.server, afresh=afresh):
                case Known(key):
                    return key
                case Lead(fetch, known):
                    return (yield from self._led(fetch, known))
                case Follow(fetch):
                    self._refuse_own_verification(fetch)
                    fetched = yield Wait(fetch, _RENEWAL_TIMEOUT_S if afresh else _PATIENCE_S)
                    if fetched is not None:
                        return cast("Key", fetched)
                    if afresh:
                        afresh = False
                    elif own := self._own_fetch(fetch, self._cache.now() - began):
                        return (yield from self._led(own, None))

    def own_key(self) -> Steps[Key | http.Response]:
        """Return a key that this request fetches for itself, over a connection of its own. Others may use it, too.

        The result and the errors are those of `key`.
        """
        return (yield from self._led(self._cache.lead(self.server), None, is_alone=True))

    def _own_fetch(self, fetch: KeyFetch, waited_s: float) -> KeyFetch | None:
        """Return a new fetch if this request is the one to begin it, after `fetch` failed or takes too long."""
        if waited_s >= _PATIENCE_S * (1 if fetch.has_ended else _MOST_PATIENCES):
            return self._cache.lead(self.server)
        return None if fetch.has_ended else self._cache.take_over(self.server, fetch)

    def _refuse_own_verification(self, fetch: KeyFetch) -> None:
        """Raise an error if `verify_key` sends this request while it checks the key of `fetch`: both would wait."""
        if fetch in _verified_now.get():
            url = self._location.url_for(self._request)
            raise SealedTransportError(
                f"verify_key sends a request that would be sealed to the key of {url}, which it has yet to verify: "
                "nothing was sent; use another client in verify_key"
            )

    def _led(self, fetch: KeyFetch, known: Key | None, *, is_alone: bool = False) -> Steps[Key | http.Response]:
        """Carry out `fetch`. While `known` still serves, it takes the place of an answer that brings no key."""
        most_s = None if known is None else _RENEWAL_TIMEOUT_S
        try:
            found = yield from self._fetched(fetch, most_s, is_alone=is_alone)
        except (self._library.TransportError, KeyConfigurationError):
            if known is None:
                raise
            return known
        if known is None or isinstance(found, Key):
            return found
        yield Close(found)
        return known

    def _fetched(self, fetch: KeyFetch, most_s: float | None, *, is_alone: bool) -> Steps[Key | http.Response]:
        key: Key | None = None
        try:
            request = self._location.request_for(
                self._library, self._request, past_caches=fetch.past_caches, most_s=most_s
            )
            response: http.Response = yield Send(request, is_alone)
            if says_try_later(response):
                return response
            public_key = yield from self._published_key(response, fetch)
            key = self._cache.put(self.server, fetch, public_key, lifetime_s(response.headers))
            return key
        finally:
            self._cache.end(self.server, fetch, key)

    def _published_key(self, response: http.Response, fetch: KeyFetch) -> Steps[bytes]:
        url = self._location.url_for(self._request)
        config = yield Read(response, MOST_UNSEALED_BYTES)
        if config is None:
            raise KeyConfigurationError(f"{url} answered with more than {MOST_UNSEALED_BYTES} bytes instead of a key")
        public_key = key_in_response(url, response, config)
        try:
            RequestSealer(public_key).erase()
        except InvalidPublicKeyError as error:
            raise KeyConfigurationError(f"{url} published a key that cannot be used: {error}") from None
        outer = _verified_now.get()
        _verified_now.set((*outer, fetch))
        try:
            verdict = yield Verify(public_key)
        finally:
            _verified_now.set(outer)
        if verdict is not None and verdict is not True:
            raise KeyRejectedError(f"verify_key refused the key {public_key.hex()} that {url} published: {verdict!r}")
        return public_key
