"""How the client keeps keys when answers overtake each other."""

import math

import httpx2
import pytest

from server_keys.client.key_cache import KeyCache
from server_keys.client.published_key import lifetime_s

OLD, NEW = b"o" * 32, b"n" * 32


def test_the_fetch_that_began_later_wins_whatever_ends_first() -> None:
    cache = KeyCache(lambda: 0.0)
    slow, quick = cache.draw_ticket(), cache.draw_ticket()
    cache.put("origin", NEW, 60, quick)
    cache.put("origin", OLD, 60, slow)
    assert cache.get("origin") == NEW


def test_a_key_that_was_replaced_meanwhile_is_not_forgotten() -> None:
    cache = KeyCache(lambda: 0.0)
    cache.put("origin", NEW, 60, cache.draw_ticket())
    cache.discard("origin", OLD)
    assert cache.get("origin") == NEW
    cache.discard("origin", NEW)
    assert cache.get("origin") is None


def test_a_refused_key_does_not_make_way_for_an_older_one() -> None:
    cache = KeyCache(lambda: 0.0)
    slow, quick = cache.draw_ticket(), cache.draw_ticket()
    cache.put("origin", NEW, 60, quick)
    cache.discard("origin", NEW)
    cache.put("origin", OLD, 60, slow)
    assert cache.get("origin") is None
    cache.put("origin", NEW, 60, cache.draw_ticket())
    assert cache.get("origin") == NEW


def test_time_counts_from_when_the_fetch_began() -> None:
    now = 0.0
    cache = KeyCache(lambda: now)
    ticket = cache.draw_ticket()
    now = 5.0
    cache.put("origin", NEW, 60, ticket)
    now = 59.9
    assert cache.get("origin") == NEW
    now = 60.0
    assert cache.get("origin") is None


@pytest.mark.parametrize(
    ("cache_control", "age", "expected"),
    [
        ("max-age=300", None, 300),
        ("public, MAX-AGE=300, immutable", "20", 280),
        ('max-age="300"', "soon", 300),
        ("max-age=300", "400", 0),
        ("no-store", None, 0),
        ("no-cache, max-age=300", None, 0),
        ("max-age=300 , public", None, 300),
        ("max-age=forever", None, 0),
        ("max-age", None, 0),
        ("max-age=" + "9" * 5000, "5", 2**31 - 5),
        ("s-maxage=300", None, math.inf),
        (None, None, math.inf),
    ],
)
def test_for_how_long_a_key_may_be_used(cache_control: str | None, age: str | None, expected: float) -> None:
    headers = {"Cache-Control": cache_control, "Age": age}
    assert lifetime_s(httpx2.Headers({name: value for name, value in headers.items() if value})) == expected
