"""The servers' public keys, for as long as the servers allow, and the rules for when a key is fetched."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

from server_keys._native import XWingPublicKey
from server_keys._sealing.key_entries import PublishedKeys
from server_keys.client.key_fetch import Key, KeyFetch, XWingReceiver

# A key in doubt is fetched at most this often, so that no answer, whoever sends it, makes a client hammer its server.
_LEAST_BETWEEN_FETCHES_S = 1.0
# A key is renewed after this part of its lifetime.
_RENEWED_FROM = 0.9


class Known(NamedTuple):
    """The key may be used."""

    key: Key


class Lead(NamedTuple):
    """The caller is to carry out `fetch`, and then to call `end`. If it brings no key, `known` may still be used."""

    fetch: KeyFetch
    known: Key | None


class Follow(NamedTuple):
    """Somebody else is fetching the key."""

    fetch: KeyFetch


class _Server:
    """The key of one server, and the state of its fetches."""

    def __init__(self) -> None:
        self.key: Key | None = None
        self.key_number = 0
        self.offers_v1 = False
        self.is_in_doubt = False
        self.fetch: KeyFetch | None = None
        self.last_fetch_at: float | None = None


class KeyCache:
    """Public keys by server. Safe under threads.

    Of several fetches the one that began last counts, in whatever order they end. So a slow answer from before a
    rotation never replaces an answer from after it, even if the server has refused that later key since.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.now = clock
        self._lock = threading.Lock()
        self._servers: dict[object, _Server] = {}
        self._last_number = 0

    def ask(self, server: object, *, afresh: bool = False) -> Known | Lead | Follow:
        """Return the key of `server`, or what the caller is to do for it.

        With `afresh` a key that is known counts as due.
        """
        with self._lock:
            known = self._servers.setdefault(server, _Server())
            now = self.now()
            key = known.key if known.key is not None and now < known.key.fresh_until else None
            may_be_used = key is not None and not known.is_in_doubt
            if known.fetch is not None:
                return Known(key) if key is not None and may_be_used and not afresh else Follow(known.fetch)
            if key is not None and not self._is_due(known, key, now, afresh=afresh):
                return Known(key)
            return Lead(self._begin(known, now), key if may_be_used else None)

    def lead(self, server: object) -> KeyFetch:
        """Begin a fetch, even though somebody else's is not over."""
        with self._lock:
            return self._begin(self._servers[server], self.now())

    def take_over(self, server: object, fetch: KeyFetch) -> KeyFetch | None:
        """Begin a fetch in place of `fetch`, which takes too long, or return None if somebody else has done it."""
        with self._lock:
            known = self._servers[server]
            return self._begin(known, self.now()) if known.fetch is fetch else None

    def put(self, server: object, fetch: KeyFetch, keys: PublishedKeys, lifetime_s: float) -> Key:
        """Keep what `fetch` brought, for `lifetime_s` seconds from when it began, and return it."""
        began = fetch.began_at
        xwing = keys.xwing and XWingReceiver(keys.xwing.key_id, XWingPublicKey(keys.xwing.public_key))
        key = Key(keys, xwing, began, began + _RENEWED_FROM * lifetime_s, began + lifetime_s)
        with self._lock:
            known = self._servers[server]
            if known.key_number < fetch.number:
                known.key, known.key_number, known.is_in_doubt = key, fetch.number, False
                known.offers_v1 = keys.xwing is not None
        return key

    def end(self, server: object, fetch: KeyFetch, key: Key | None) -> None:
        """Let the others go on that wait for `fetch`, with its key, or with None if it failed."""
        with self._lock:
            known = self._servers[server]
            if known.fetch is fetch:
                known.fetch = None
            # If another fetch took this one's place, the requests that wait for that one get this key, too.
            later = known.fetch if key is not None and known.key is key else None
        for ended in (fetch, later):
            if ended is not None:
                ended.end(key)

    def offers_v1(self, server: object) -> bool:
        """Return whether the last answer of `server` that brought a key offered version 1, however long ago."""
        with self._lock:
            known = self._servers.get(server)
            return known is not None and known.offers_v1

    def doubt(self, server: object, key: Key) -> None:
        """Have the key fetched anew before it is used again, if it is still this one and was not fetched just now."""
        with self._lock:
            known = self._servers[server]
            known.is_in_doubt = known.is_in_doubt or known.key is key

    def discard(self, server: object, key: Key) -> None:
        """Never use the key again, if it is still this one."""
        with self._lock:
            known = self._servers[server]
            if known.key is key:
                known.key, known.is_in_doubt = None, True

    def _is_due(self, known: _Server, key: Key, now: float, *, afresh: bool) -> bool:
        is_wanted = afresh or known.is_in_doubt or now >= key.renewed_from
        last = known.last_fetch_at
        return is_wanted and (last is None or now - last >= _LEAST_BETWEEN_FETCHES_S)

    def _begin(self, known: _Server, now: float) -> KeyFetch:
        self._last_number += 1
        # If a key is known, or was refused, a cache on the way may still hold it.
        past_caches = known.is_in_doubt or (known.key is not None and now < known.key.fresh_until)
        known.fetch = KeyFetch(self._last_number, now, past_caches=past_caches)
        known.last_fetch_at = now
        return known.fetch
