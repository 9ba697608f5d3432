"""How the client keeps keys when answers overtake each other, and for how long."""

import httpx2
import pytest

from server_keys._sealing.key_entries import PublishedKeys
from server_keys.client.key_cache import Follow, KeyCache, Known, Lead
from server_keys.client.key_fetch import Key, KeyFetch
from server_keys.client.published_key import lifetime_s
from tests.helpers.held_time import HeldTime

OLD, NEW = b"o" * 32, b"n" * 32


class Cache:
    """The cache of one server's key, in held time."""

    def __init__(self) -> None:
        self.time = HeldTime()
        self.cache = KeyCache(self.time.boot)

    def begin(self) -> KeyFetch:
        answer = self.cache.ask("server")
        return answer.fetch if isinstance(answer, Lead) else self.cache.lead("server")

    def end(self, fetch: KeyFetch, public_key: bytes, lifetime_s: float = 60) -> Key:
        key = self.cache.put("server", fetch, PublishedKeys(public_key, None), lifetime_s)
        self.cache.end("server", fetch, key)
        return key

    @property
    def known(self) -> bytes | None:
        """The key that a request would be sealed to now; None if it would have to be fetched."""
        answer = self.cache.ask("server")
        if isinstance(answer, Lead):
            self.cache.end("server", answer.fetch, None)
        return answer.key.keys.x25519 if isinstance(answer, Known) else None


def test_the_fetch_that_began_later_wins_whatever_ends_first() -> None:
    cache = Cache()
    slow, quick = cache.begin(), cache.begin()
    cache.end(quick, NEW)
    cache.end(slow, OLD)
    assert cache.known == NEW


def test_a_key_that_was_replaced_meanwhile_is_neither_forgotten_nor_doubted() -> None:
    cache = Cache()
    old = cache.end(cache.begin(), OLD)
    new = cache.end(cache.begin(), NEW)
    cache.time.pass_s(2)
    cache.cache.discard("server", old)
    cache.cache.doubt("server", old)
    assert cache.known == NEW
    cache.cache.discard("server", new)
    assert cache.known is None


def test_a_refused_key_does_not_make_way_for_an_older_one() -> None:
    cache = Cache()
    slow, quick = cache.begin(), cache.begin()
    cache.cache.discard("server", cache.end(quick, NEW))
    cache.end(slow, OLD)
    assert cache.known is None
    cache.end(cache.begin(), NEW)
    assert cache.known == NEW


def test_time_counts_from_when_the_fetch_began() -> None:
    cache = Cache()
    fetch = cache.begin()
    cache.time.pass_s(5)
    cache.end(fetch, NEW)
    cache.time.pass_s(48.75)
    assert cache.known == NEW
    cache.time.pass_s(6.25)
    assert cache.known is None


def test_one_request_renews_a_key_while_the_others_use_it() -> None:
    cache = Cache()
    key = cache.end(cache.begin(), OLD)
    cache.time.pass_s(54)
    renewal = cache.cache.ask("server")
    assert isinstance(renewal, Lead)
    assert (renewal.known, renewal.fetch.past_caches) == (key, True)
    assert cache.known == OLD
    cache.end(renewal.fetch, NEW)
    assert cache.known == NEW


def test_a_request_for_a_key_that_is_being_fetched_waits() -> None:
    cache = Cache()
    fetch = cache.begin()
    follower = cache.cache.ask("server")
    assert follower == Follow(fetch)
    cache.end(fetch, NEW)
    assert cache.known == NEW


def test_a_key_in_doubt_is_fetched_once_a_second_at_most() -> None:
    cache = Cache()
    key = cache.end(cache.begin(), OLD)
    fetches = 0
    for _ in range(40):
        cache.cache.doubt("server", key)
        answer = cache.cache.ask("server")
        if isinstance(answer, Lead):
            assert (answer.known, answer.fetch.past_caches) == (None, True)
            assert isinstance(cache.cache.ask("server"), Follow), "a key in doubt is used while the next one comes"
            key = cache.end(answer.fetch, OLD)
            fetches += 1
        cache.time.pass_s(0.25)
    assert fetches == 9


@pytest.mark.parametrize(
    ("cache_control", "age", "expected"),
    [
        ("max-age=300", None, 300),
        ("public, MAX-AGE=300, immutable", "20", 280),
        ('max-age="300"', "soon", 300),
        ("max-age=300", "400", 0),
        ("max-age=300", "20, 90", 280),
        ("max-age=300", "-1", 300),
        ("max-age=300", "9" * 5000, 0),
        ("no-store", None, 0),
        ("no-cache, max-age=300", None, 0),
        ("max-age=300 , public", None, 300),
        ("max-age=300, max-age=30", None, 30),
        ("max-age=forever", None, 0),
        ("max-age=-300", None, 0),
        ("max-age=\u0663", None, 0),
        ("max-age", None, 0),
        ("max-age=" + "9" * 5000, "5", 3600),
        ("max-age=31536000", None, 3600),
        ("s-maxage=300", None, 3600),
        (None, "20", 3600),
        (None, None, 3600),
    ],
)
def test_for_how_long_a_key_may_be_used(cache_control: str | None, age: str | None, expected: float) -> None:
    headers = {"Cache-Control": cache_control, "Age": age}
    sent = httpx2.Headers([(name.encode(), value.encode()) for name, value in headers.items() if value])
    assert lifetime_s(sent) == expected
