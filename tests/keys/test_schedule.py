"""The rules of time for key pairs, without a ring, a key or a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server_keys._keys.retries import Retries
from server_keys._keys.schedule import Schedule

SCHEDULE = Schedule(period_s=300.0, overlap_s=30.0)

times = st.integers(0, 10**9).map(float)
durations = st.integers(1, 10**6).map(float)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Make schedules whose overlap is no longer than their period."""
    period_s = draw(durations)
    return Schedule(period_s, draw(st.integers(0, int(period_s)).map(float)))


def test_a_pair_is_replaced_after_the_period() -> None:
    assert SCHEDULE.replaced_at(1000.0) == 1300.0


@pytest.mark.parametrize(("period_s", "replaced_at"), [(10.0, 1010.0), (300.0, 1300.0), (999.0, 1300.0)])
def test_a_shorter_period_replaces_it_sooner_and_a_longer_one_no_later(period_s: float, replaced_at: float) -> None:
    assert SCHEDULE.replaced_at(1000.0, period_s) == replaced_at


@pytest.mark.parametrize(
    ("replaced_at", "accepted_until"),
    [
        pytest.param(1100.0, 1130.0, id="early"),
        pytest.param(1300.0, 1330.0, id="on time"),
        pytest.param(1310.0, 1330.0, id="late"),
        pytest.param(9999.0, 1330.0, id="very late"),
    ],
)
def test_the_overlap_begins_at_the_replacement_or_when_it_was_due(replaced_at: float, accepted_until: float) -> None:
    assert SCHEDULE.accepted_until(1000.0, replaced_at) == accepted_until


def test_a_pair_that_nobody_replaces_is_over_when_its_overlap_would_have_been() -> None:
    assert SCHEDULE.over_at(1000.0) == 1330.0


@given(schedules(), times, durations)
def test_no_pair_lives_longer_than_period_and_overlap(schedule: Schedule, made_at: float, age_s: float) -> None:
    until = schedule.accepted_until(made_at, made_at + age_s)
    assert until <= schedule.over_at(made_at) == made_at + schedule.period_s + schedule.overlap_s
    assert schedule.replaced_at(made_at) <= schedule.over_at(made_at)


@given(schedules(), times)
def test_without_an_overlap_a_pair_ends_with_its_replacement(schedule: Schedule, made_at: float) -> None:
    sharp = Schedule(schedule.period_s, 0.0)
    assert sharp.accepted_until(made_at, sharp.replaced_at(made_at)) == sharp.replaced_at(made_at)


def test_the_same_schedule_is_accepted_and_another_refused_by_name() -> None:
    SCHEDULE.require_same(Schedule(300, 30))
    for other in (Schedule(60.0, 30.0), Schedule(300.0, 300.0)):
        with pytest.raises(RuntimeError) as raised:
            SCHEDULE.require_same(other)
        assert "a refresh time of 300 s with an overlap of 30 s already" in str(raised.value)
        assert f"a refresh time of {other.period_s:g} s with an overlap of {other.overlap_s:g} s, too" in str(
            raised.value
        )


def test_while_nothing_fails_everything_is_tried_when_it_is_due() -> None:
    retries = Retries()
    assert retries.allowed_at(5.0) == 5.0
    assert (retries.total, retries.in_a_row, retries.last_error) == (0, 0, None)


def test_delays_double_from_a_tenth_of_a_second_up_to_five_seconds() -> None:
    # With jitter, each is between half of that and all of it.
    retries = Retries()
    for longest in [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[5.0] * 100]:
        delay_s = retries.failed(OSError("no entropy"), 1000.0)
        assert longest / 2 <= delay_s <= longest
        assert retries.not_before == 1000.0 + delay_s
    assert retries.total == retries.in_a_row == 106


def test_processes_do_not_retry_in_step() -> None:
    assert len({Retries().failed(OSError(), 0.0) for _ in range(20)}) > 1


def test_after_a_failure_nothing_is_tried_before_the_delay() -> None:
    retries = Retries()
    delay_s = retries.failed(OSError("no entropy"), 1000.0)
    assert retries.allowed_at(1000.0) == 1000.0 + delay_s
    assert retries.allowed_at(2000.0) == 2000.0
    assert retries.last_error == "OSError: no entropy"


def test_a_success_ends_the_row_and_keeps_the_total() -> None:
    retries = Retries()
    for _ in range(3):
        retries.failed(OSError("no entropy"), 1000.0)
    retries.succeeded()
    assert (retries.total, retries.in_a_row, retries.last_error) == (3, 0, None)
    assert retries.allowed_at(1000.0) == 1000.0
    assert retries.failed(OSError("again"), 2000.0) <= 0.1
