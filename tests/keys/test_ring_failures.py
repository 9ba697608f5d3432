"""A key ring while no new pair can be made: it keeps its pairs to their end, tells why, and tries again."""

import logging

import pytest

from server_keys import EntropyError, KeyErasedError, KeyPair, KeyRing, KeysUnavailableError
from tests.helpers.held_time import HeldTime
from tests.helpers.key_source import Source

NO_ENTROPY = EntropyError("the random source failed")


@pytest.fixture
def held() -> HeldTime:
    return HeldTime()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def ring(held: HeldTime, source: Source) -> KeyRing:
    return KeyRing(10, overlap_s=4, generate=source, clock=held.boot)


def test_a_failed_refresh_leaves_the_ring_as_it_was(ring: KeyRing, source: Source) -> None:
    ring.refresh()
    before = ring.accepted
    source.error = NO_ENTROPY
    with pytest.raises(EntropyError) as raised:
        ring.refresh()
    assert raised.value is NO_ENTROPY
    assert ring.accepted == before
    assert source.usable == [0, 1]
    assert (ring.status.refreshes, ring.status.failures) == (1, 1)
    assert ring.status.last_error == "EntropyError: the random source failed"


def test_a_failed_refresh_is_logged_with_its_reason(
    ring: KeyRing, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    source.error = MemoryError("no memory for secrets")
    with pytest.raises(MemoryError):
        ring.refresh()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("server_keys", logging.WARNING)
    assert "MemoryError: no memory for secrets" in record.getMessage()
    assert source.pairs[0].public_key.hex() not in record.getMessage()


def test_a_failed_refresh_is_logged_though_a_logging_configuration_disabled_the_logger(
    ring: KeyRing, source: Source, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("server_keys"), "disabled", True)  # as `dictConfig` does
    source.error = MemoryError("no memory for secrets")
    with pytest.raises(MemoryError):
        ring.refresh()
    assert "MemoryError: no memory for secrets" in caplog.text


def test_the_pair_in_use_is_handed_out_past_its_period_while_refreshes_fail(
    held: HeldTime, ring: KeyRing, source: Source
) -> None:
    source.error = NO_ENTROPY
    held.pass_s(13.75)
    assert ring.current is source.pairs[0]
    assert ring.accepted == (source.pairs[0],)
    assert ring.status.failures > 0


def test_past_period_and_overlap_nothing_is_handed_out_and_the_reason_is_told(
    held: HeldTime, ring: KeyRing, source: Source
) -> None:
    source.error = NO_ENTROPY
    held.pass_s(14)
    for name in ("current", "accepted"):
        with pytest.raises(KeysUnavailableError, match="EntropyError: the random source failed; next try in "):
            getattr(ring, name)
    assert source.usable == []
    with pytest.raises(KeyErasedError):
        source.pairs[0].exchange(KeyPair.generate().public_key)
    status = ring.status
    assert (status.key_id, status.closed) == (None, False)
    assert status.last_error == "EntropyError: the random source failed"


def test_the_previous_pair_is_erased_on_time_while_refreshes_fail(
    held: HeldTime, ring: KeyRing, source: Source
) -> None:
    held.pass_s(10)
    ring.refresh_if_due()
    source.error = NO_ENTROPY
    held.pass_s(4)
    ring.refresh_if_due()
    assert source.usable == [1]
    held.pass_s(10)
    ring.refresh_if_due()
    assert source.usable == []


def test_the_ring_recovers_by_itself(held: HeldTime, ring: KeyRing, source: Source) -> None:
    source.error = NO_ENTROPY
    held.pass_s(11)
    assert ring.current is source.pairs[0]
    source.error = None
    held.pass_s(0.25)
    assert ring.current is source.pairs[1]
    assert (ring.status.refreshes, ring.status.failures, ring.status.last_error) == (1, 1, None)
    # Its overlap began when it should have been replaced, 1.25 s before it was.
    held.pass_s(2.5)
    assert len(ring.accepted) == 2
    held.pass_s(0.25)
    assert len(ring.accepted) == 1
    assert source.usable == [1]


def test_the_ring_recovers_after_it_handed_out_nothing(held: HeldTime, ring: KeyRing, source: Source) -> None:
    source.error = NO_ENTROPY
    held.pass_s(100)
    with pytest.raises(KeysUnavailableError):
        _ = ring.current
    source.error = None
    held.pass_s(5)
    assert ring.accepted == (source.pairs[1],)
    assert ring.status.last_error is None


def test_no_try_before_the_back_off_is_over(held: HeldTime, ring: KeyRing, source: Source) -> None:
    source.error = NO_ENTROPY
    held.pass_s(10)
    for _ in range(1000):
        _ = ring.current
        ring.refresh_if_due()
    assert source.tries == 2
    wait_s = ring.next_event_in_s()
    assert wait_s is not None
    assert wait_s == ring.status.next_refresh_in_s
    held.pass_s(wait_s + 1e-6)
    for _ in range(1000):
        _ = ring.current
    assert source.tries == 3


def delays_s(held: HeldTime, ring: KeyRing, count: int) -> list[float]:
    """Return how long the ring waits after each of its next failures."""
    delays = []
    for _ in range(count):
        failures = ring.status.failures
        ring.refresh_if_due()
        assert ring.status.failures == failures + 1
        delays.append(ring.status.next_refresh_in_s or 0.0)
        held.pass_s(delays[-1] + 1e-6)
    return delays


def test_the_back_off_doubles_up_to_a_limit_and_begins_anew_after_a_success(
    held: HeldTime, ring: KeyRing, source: Source
) -> None:
    source.error = NO_ENTROPY
    held.pass_s(10)
    for number, delay_s in enumerate(delays_s(held, ring, 40)):
        longest_s = min(0.1 * 2**number, 5.0)
        assert longest_s / 2 - 1e-6 <= delay_s <= longest_s + 1e-6
    source.error = None
    ring.refresh_if_due()
    assert ring.status.next_refresh_in_s == 10.0
    source.error = NO_ENTROPY
    held.pass_s(10)
    assert delays_s(held, ring, 1)[0] <= 0.1 + 1e-6


def test_rings_that_fail_together_try_again_at_different_times(held: HeldTime) -> None:
    sources = [Source() for _ in range(20)]
    rings = [KeyRing(10, generate=source, clock=held.boot) for source in sources]
    held.pass_s(10)
    for source in sources:
        source.error = NO_ENTROPY
    for ring in rings:
        ring.refresh_if_due()
    assert len({ring.status.next_refresh_in_s for ring in rings}) > 10


def test_the_next_event_includes_the_end_of_a_pair_that_cannot_be_replaced(
    held: HeldTime, ring: KeyRing, source: Source
) -> None:
    source.error = NO_ENTROPY
    held.pass_s(10)
    delays_s(held, ring, 3)
    while not source.pairs[0].erased:
        wait_s = ring.next_event_in_s()
        assert wait_s is not None
        held.pass_s(wait_s + 1e-6)
        ring.refresh_if_due()
    assert held.boot() == pytest.approx(1014, abs=1e-3)


def test_a_closed_ring_does_not_try(held: HeldTime, ring: KeyRing, source: Source) -> None:
    source.error = NO_ENTROPY
    held.pass_s(10)
    ring.refresh_if_due()
    ring.close()
    held.pass_s(100)
    ring.refresh_if_due()
    assert source.tries == 2
    with pytest.raises(KeysUnavailableError, match="closed"):
        ring.refresh()
    assert ring.status.failures == 1
