"""The pairs that a key ring hands out as time passes, with a clock that the test holds."""

import gc
import logging
import signal
import time

import pytest

from server_keys import EntropyError, KeyErasedError, KeyPair, KeyRing, KeyRingStatus, KeysUnavailableError
from tests.helpers.held_time import HeldTime
from tests.helpers.key_source import Source

PEER = KeyPair.generate().public_key


@pytest.fixture
def held() -> HeldTime:
    return HeldTime()


@pytest.fixture
def source() -> Source:
    return Source()


def ring_of(held: HeldTime, source: Source, period_s: float = 10, overlap_s: float | None = 4) -> KeyRing:
    return KeyRing(period_s, overlap_s=overlap_s, generate=source, clock=held.boot)


def test_a_new_ring_has_one_pair(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    assert source.tries == 1
    assert ring.current is source.pairs[0]
    assert ring.accepted == (source.pairs[0],)
    assert len(ring.current.exchange(PEER)) == 32


def test_a_pair_stays_for_its_period_and_is_accepted_for_the_overlap(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    held.pass_s(9.75)
    assert ring.current is source.pairs[0]
    held.pass_s(0.25)
    assert ring.current is source.pairs[1]
    assert [source.pairs.index(pair) for pair in ring.accepted] == [1, 0]
    held.pass_s(3.75)
    assert [source.pairs.index(pair) for pair in ring.accepted] == [1, 0]
    held.pass_s(0.25)
    assert [source.pairs.index(pair) for pair in ring.accepted] == [1]
    assert source.usable == [1]
    assert source.tries == 2


def test_an_erased_pair_agrees_on_nothing(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    for _ in range(2):
        held.pass_s(10)
        ring.refresh_if_due()
    with pytest.raises(KeyErasedError):
        source.pairs[0].exchange(PEER)


@pytest.mark.parametrize("name", ["current", "accepted"])
def test_an_overdue_pair_is_replaced_by_whoever_asks_first(held: HeldTime, source: Source, name: str) -> None:
    ring = ring_of(held, source)
    held.pass_s(12)
    assert source.tries == 1
    getattr(ring, name)
    getattr(ring, name)
    assert source.tries == 2
    # Not longer than its period and the overlap, however late the replacement was: 2 s of the 4 s are over.
    held.pass_s(2)
    ring.refresh_if_due()
    assert source.usable == [1]


@pytest.mark.parametrize("asleep_s", [14, 15, 100, 1e9])
def test_a_machine_that_slept_past_everything_finds_one_fresh_pair(
    held: HeldTime, source: Source, asleep_s: float
) -> None:
    ring = ring_of(held, source)
    held.pass_s(11)
    _ = ring.current
    held.sleep_s(asleep_s)
    assert ring.accepted == (source.pairs[2],)
    assert source.usable == [2]


@pytest.mark.parametrize("overlap_s", [0, 1, 4, 10])
@pytest.mark.parametrize("step_s", [0.25, 1, 3, 7, 25])
def test_no_private_key_is_handed_out_past_period_and_overlap(
    held: HeldTime, source: Source, overlap_s: float, step_s: float
) -> None:
    ring = ring_of(held, source, overlap_s=overlap_s)
    came_at = {source.pairs[0].public_key: held.boot()}
    for _ in range(200):
        held.pass_s(step_s)
        for pair in ring.accepted:
            age_s = held.boot() - came_at.setdefault(pair.public_key, held.boot())
            assert age_s < 10 + overlap_s
            assert not pair.erased
        assert held.boot() - came_at[ring.current.public_key] < 10
        assert len(source.usable) == len(ring.accepted) <= 2


def test_without_overlap_a_pair_is_erased_as_it_is_replaced(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source, overlap_s=0)
    held.pass_s(9)
    ring.refresh()
    assert source.usable == [1]
    assert ring.accepted == (source.pairs[1],)


def test_the_overlap_is_the_period_by_default(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source, overlap_s=None)
    assert (ring.period_s, ring.overlap_s) == (10.0, 10.0)
    held.pass_s(10)
    assert len(ring.accepted) == 2
    held.pass_s(9.75)
    assert len(ring.accepted) == 2


def test_refreshing_twice_erases_the_older_pair(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    ring.refresh()
    assert source.usable == [0, 1]
    ring.refresh()
    assert source.usable == [1, 2]
    assert ring.accepted == (source.pairs[2], source.pairs[1])
    assert ring.status.refreshes == 2


def test_a_pair_that_somebody_erased_is_replaced(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    ring.current.erase()
    assert ring.accepted == (source.pairs[1],)


def test_the_status_in_each_state(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    held.pass_s(3)
    first = source.pairs[0].public_key[:8].hex()
    status = KeyRingStatus(
        key_id=first,
        age_s=3.0,
        next_refresh_in_s=7.0,
        previous_key_id=None,
        refreshes=0,
        failures=0,
        last_error=None,
        closed=False,
    )
    assert ring.status == status
    ring.refresh()
    second = source.pairs[1].public_key[:8].hex()
    held.pass_s(1)
    assert ring.status.key_id == second
    assert ring.status.previous_key_id == first
    assert (ring.status.age_s, ring.status.next_refresh_in_s, ring.status.refreshes) == (1.0, 9.0, 1)
    held.pass_s(3)
    assert ring.status.previous_key_id is None, "it is over, though nobody has erased it yet"
    ring.close()
    assert ring.status == KeyRingStatus(
        key_id=None,
        age_s=None,
        next_refresh_in_s=None,
        previous_key_id=None,
        refreshes=1,
        failures=0,
        last_error=None,
        closed=True,
    )


def test_reading_the_status_changes_nothing(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    held.pass_s(1000)
    overdue = ring.status
    assert (overdue.age_s, overdue.next_refresh_in_s, overdue.refreshes) == (1000.0, 0.0, 0)
    assert (source.tries, source.usable) == (1, [0])
    assert repr(ring) == repr(ring)
    assert ring.next_event_in_s() == 0.0
    assert source.tries == 1


def test_the_next_event_is_a_replacement_or_the_end_of_the_previous_pair(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    assert ring.next_event_in_s() == 10.0
    assert ring.next_event_in_s(3) == 3.0
    assert ring.next_event_in_s(30) == 10.0
    held.pass_s(10)
    ring.refresh_if_due()
    assert ring.next_event_in_s() == 4.0
    held.pass_s(4)
    ring.refresh_if_due()
    assert ring.next_event_in_s() == 6.0
    ring.close()
    assert ring.next_event_in_s() is None
    ring.refresh_if_due()


def test_a_closed_ring_hands_out_nothing_and_says_why(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    ring.refresh()
    ring.close()
    ring.close()
    assert source.usable == []
    for use in (lambda: ring.current, lambda: ring.accepted, ring.refresh):
        with pytest.raises(KeysUnavailableError, match="this key ring is closed and its keys are erased"):
            use()
    held.pass_s(1000)
    ring.refresh_if_due()
    assert source.tries == 2


def test_leaving_the_block_erases_also_when_it_raises(held: HeldTime, source: Source) -> None:
    ring = ring_of(held, source)
    with pytest.raises(ZeroDivisionError), ring:
        raise ZeroDivisionError
    assert source.usable == []
    assert ring.status.closed


def test_the_repr_shows_no_secret(held: HeldTime) -> None:
    private_key = bytes(range(32))
    ring = KeyRing(10, overlap_s=4, generate=lambda: KeyPair.from_private_key(private_key), clock=held.boot)
    assert repr(ring) == f"<KeyRing period 10 s, overlap 4 s, current {ring.current!r}>"
    for shown in (repr(ring), str(ring), repr(ring.status)):
        assert private_key.hex()[:16] not in shown
        assert repr(private_key)[2:10] not in shown
    ring.close()
    assert repr(ring) == "<KeyRing period 10 s, overlap 4 s, closed>"


def test_a_pair_stays_usable_after_its_ring_is_gone_if_somebody_holds_it(held: HeldTime) -> None:
    pair = KeyRing(10, clock=held.boot).current
    gc.collect()
    assert len(pair.exchange(PEER)) == 32


def test_the_first_pair_that_cannot_be_made_is_the_callers_error(held: HeldTime, source: Source) -> None:
    source.error = EntropyError("the random source failed")
    with pytest.raises(EntropyError, match="the random source failed"):
        ring_of(held, source)


def test_time_goes_on_while_the_machine_sleeps(held: HeldTime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "clock_gettime", held.clock_gettime)
    with KeyRing(10) as ring:
        before = ring.current
        held.sleep_s(20)
        assert ring.status.age_s == 20.0
        assert ring.current is not before
        assert before.erased


def test_a_signal_handler_may_look_at_the_ring_that_its_thread_refreshes(held: HeldTime) -> None:
    seen: list[str | None] = []
    rings: list[KeyRing] = []

    def generate() -> KeyPair:
        signal.raise_signal(signal.SIGUSR1)
        return KeyPair.generate()

    before = signal.signal(signal.SIGUSR1, lambda *_: seen.extend(ring.status.key_id for ring in rings))
    try:
        rings.append(KeyRing(10, generate=generate, clock=held.boot))
        first = rings[0].status.key_id
        rings[0].refresh()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [first]


def test_a_ring_that_is_closed_during_its_own_refresh_stays_closed(held: HeldTime) -> None:
    made: list[KeyPair] = []

    def generate() -> KeyPair:
        for ring in rings:  # as a signal handler would
            ring.close()
        made.append(KeyPair.generate())
        return made[-1]

    rings: list[KeyRing] = []
    rings.append(KeyRing(10, generate=generate, clock=held.boot))
    with pytest.raises(KeysUnavailableError, match="closed"):
        rings[0].refresh()
    assert rings[0].status.closed
    assert made[0].erased


def test_a_refresh_within_a_refresh_forgets_no_pair(held: HeldTime, source: Source) -> None:
    rings: list[KeyRing] = []

    def generate() -> KeyPair:
        if rings and source.tries == 1:
            source()
            rings[0].refresh()
        return source()

    rings.append(KeyRing(10, generate=generate, clock=held.boot))
    rings[0].refresh()
    assert source.tries == 4
    del source.pairs[1]  # made above for nobody
    assert rings[0].accepted == (source.pairs[2], source.pairs[1])
    assert source.pairs[0].erased
    assert rings[0].status.refreshes == 2


def test_a_refresh_is_logged_without_a_secret(held: HeldTime, source: Source, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "server_keys")
    ring = ring_of(held, source)
    ring.refresh()
    old, new = (pair.public_key[:8].hex() for pair in source.pairs)
    assert caplog.messages == [f"key {new} replaced key {old}"]
