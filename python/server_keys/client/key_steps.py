"""The steps by which an exchange gets the key of its server: known already, fetched by itself, or by somebody else."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple, cast

from server_keys._sealing.key_entries import PublishedKeys
from server_keys.client.key_cache import Follow, KeyCache, Known, Lead
from server_keys.client.key_checks import Check, KeyChecks
from server_keys.client.key_fetch import Key, KeyFetch
from server_keys.client.key_location import KeyLocation
from server_keys.client.published_key import answer_in, lifetime_s, require_valid, says_try_later
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
# The fetches whose keys a check of the user's is judging in this context. A request that it sends must not wait for
# them.
_judged_now: ContextVar[dict[KeyFetch, Check]] = ContextVar("judged_now", default={})  # noqa: B039 - never changed


class Servers(NamedTuple):
    """The servers' keys, where the servers publish them, and what their answers have to pass."""

    cache: KeyCache
    location: KeyLocation
    checks: KeyChecks


class KeySteps:
    """Gets the key that `request` is sealed to. If many requests come at once, one fetches it and the others wait.

    If that one fails or is cancelled, each of the others asks again: the first of them fetches. So nobody gets another
    request's error.

    Args:
        library: httpx or httpx2.
        servers: where the keys are kept and found.
        request: the caller's request.

    Raises:
        SealedTransportError: the request is for another server than the one whose keys are there.
    """

    def __init__(self, library: Library, servers: Servers, request: http.Request) -> None:
        self.server: object = servers.location.server_of(request)
        self._library = library
        self._cache, self._location, self._checks = servers
        self._request = request

    def key(self, *, afresh: bool = False) -> Steps[Key | http.Response]:
        """Return the key, or the response that tells the caller to ask later.

        Args:
            afresh: ask for the key even if one is known. While nobody answers, the known one serves.

        Raises:
            KeyConfigurationError: the server publishes no key that can be used.
            KeyNotPublishedError: it publishes none.
            KeyRejectedError: the user refused its key.
            SealedTransportError: a check of the user's sends this request, which would wait for its verdict.
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
        """Raise an error if a check sends this request while it judges the answer of `fetch`: both would wait."""
        if (check := _judged_now.get().get(fetch)) is not None:
            url = self._location.url_for(self._request)
            raise SealedTransportError(
                f"{check.name} sends a request that would be sealed to the key of {url}, which it has yet to verify: "
                f"nothing was sent; use another client in {check.name}"
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
            keys = yield from self._published_keys(response, fetch)
            key = self._cache.put(self.server, fetch, keys, lifetime_s(response.headers))
            return key
        finally:
            self._cache.end(self.server, fetch, key)

    def _published_keys(self, response: http.Response, fetch: KeyFetch) -> Steps[PublishedKeys]:
        url = self._location.url_for(self._request)
        body = yield Read(response, MOST_UNSEALED_BYTES)
        answer = answer_in(url, response, body)
        keys = self._checks.usable(answer)
        require_valid(url, keys)
        for check in self._checks.of(answer):
            verdict = yield from self._verdict(check, fetch)
            if verdict is not None and verdict is not True:
                raise KeyRejectedError(f"{check.name} refused {check.subject} that {url} published: {verdict!r}")
        return keys

    def _verdict(self, check: Check, fetch: KeyFetch) -> Steps[object]:
        outer = _judged_now.get()
        _judged_now.set({**outer, fetch: check})
        try:
            return (yield Verify(check))
        finally:
            _judged_now.set(outer)
