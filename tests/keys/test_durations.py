"""The documented functions and the ring refuse refresh times and overlaps that cannot be meant."""

import asyncio
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

import pytest
from fastapi import FastAPI

from server_keys import KeyRing, ephemeral_key_lifespan_factory, inject_key_lifespan, periodic_refresh, protect

Taker = Callable[[object], object]

PERIODS = [
    pytest.param("refresh_time", lambda value: protect(FastAPI(), value), id="protect"),
    pytest.param("refresh_time", lambda value: ephemeral_key_lifespan_factory(value), id="factory"),
    pytest.param("key_refresh_time_s", lambda value: inject_key_lifespan(FastAPI, value), id="inject"),
    pytest.param("period", lambda value: asyncio.run(periodic_refresh(FastAPI(), value)), id="periodic_refresh"),
    pytest.param("period_s", lambda value: KeyRing(value), id="KeyRing"),
]
OVERLAPS = [
    pytest.param("overlap", lambda value: protect(FastAPI(), 9, overlap=value), id="protect"),
    pytest.param("overlap", lambda value: ephemeral_key_lifespan_factory(9, overlap=value), id="factory"),
    pytest.param("overlap_s", lambda value: inject_key_lifespan(FastAPI, 9, overlap_s=value), id="inject"),
    pytest.param("overlap_s", lambda value: KeyRing(9, overlap_s=value), id="KeyRing"),
]
NO_NUMBERS = ["300", b"300", True, False, 1j, Decimal(300), [300], object]
TOO_SHORT = [0, 0.0, -0.0, -1, -0.5, -math.inf, -(10**400), 5e-324, 1e-9, 0.00999, Fraction(1, 101)]
BEYOND_ALL = [math.nan, math.inf, 10**400, Fraction(10**400), 10**5000]
TOO_LONG = [366 * 86400 + 0.001, 1e9, 1e300, *BEYOND_ALL]


def short(value: object) -> str:
    return "10**5000" if value == 10**5000 else repr(value)[:20]


@pytest.mark.parametrize("value", [None, *NO_NUMBERS])
@pytest.mark.parametrize(("parameter", "take"), PERIODS)
def test_a_period_that_is_no_number_is_a_type_error_with_its_name_and_value(
    parameter: str, take: Taker, value: object
) -> None:
    with pytest.raises(TypeError, match=rf"^{parameter} must be a number of seconds") as raised:
        take(value)
    assert repr(value) in str(raised.value)
    assert type(value).__name__ in str(raised.value)


@pytest.mark.parametrize("value", [*TOO_SHORT, *TOO_LONG], ids=short)
@pytest.mark.parametrize(("parameter", "take"), PERIODS)
def test_a_period_out_of_range_is_a_value_error_with_its_name_and_value(
    parameter: str, take: Taker, value: object
) -> None:
    with pytest.raises(
        ValueError, match=rf"^{parameter} must be a number of seconds from 0\.01 to 31622400 \(366 days\), not "
    ) as raised:
        take(value)
    if value != 10**5000:  # Python itself prints no int of that length
        assert repr(value) in str(raised.value)


@pytest.mark.parametrize("value", NO_NUMBERS)
@pytest.mark.parametrize(("parameter", "take"), OVERLAPS)
def test_an_overlap_that_is_no_number_is_a_type_error_with_its_name_and_value(
    parameter: str, take: Taker, value: object
) -> None:
    with pytest.raises(TypeError, match=rf"^{parameter} must be a number of seconds") as raised:
        take(value)
    assert repr(value) in str(raised.value)


@pytest.mark.parametrize("value", [-1, -0.001, 9.001, 10, *BEYOND_ALL], ids=short)
@pytest.mark.parametrize(("parameter", "take"), OVERLAPS)
def test_an_overlap_longer_than_the_period_or_negative_is_a_value_error(
    parameter: str, take: Taker, value: object
) -> None:
    with pytest.raises(ValueError, match=rf"^{parameter} must be from 0 to the refresh time \(9\) in seconds, not "):
        take(value)


@pytest.mark.parametrize("value", [300, 0.25, Fraction(1, 4), 0.01, 366 * 86400, 366 * 86400.0])
def test_any_real_number_from_10_ms_to_366_days_is_a_period(value: float) -> None:
    with KeyRing(value) as ring:
        assert (ring.period_s, ring.overlap_s) == (float(value), float(value))
    protect(FastAPI(), value)
    ephemeral_key_lifespan_factory(value)
    inject_key_lifespan(FastAPI, value)


@pytest.mark.parametrize("value", [0, 0.0, 1e-9, Fraction(9, 2), 9])
def test_an_overlap_is_from_zero_to_the_period(value: float) -> None:
    with KeyRing(9, overlap_s=value) as ring:
        assert ring.overlap_s == float(value)
