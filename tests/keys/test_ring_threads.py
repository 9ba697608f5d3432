"""Threads that use a ring while it refreshes and erases as fast as it can: the old state, or the new one."""

import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from server_keys import KeyErasedError, KeyPair, KeyRing, KeysUnavailableError

HAMMERING_S = 0.5
PEER = KeyPair.generate()


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def together(*works: Callable[[], None]) -> None:
    """Run each of `works` again and again, each in a thread of its own, and raise what they raised."""
    until = time.monotonic() + HAMMERING_S
    errors: list[BaseException] = []
    begin = threading.Barrier(len(works))

    def repeat(work: Callable[[], None]) -> None:
        begin.wait(10)
        try:
            while time.monotonic() < until and not errors:
                work()
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"
    for error in errors:
        raise error


def test_a_reader_sees_the_old_state_or_the_new_one() -> None:
    made: list[KeyPair] = []
    seen_together = set()
    agreed = erased = 0

    def generate() -> KeyPair:
        made.append(KeyPair.generate())
        return made[-1]

    ring = KeyRing(300, generate=generate)

    def read() -> None:
        accepted = ring.accepted
        newest, *previous = (made.index(pair) for pair in accepted)
        assert previous in ([], [newest - 1])
        seen_together.add(len(accepted))

    def exchange() -> None:
        nonlocal agreed, erased
        pair = ring.current
        try:
            secret = pair.exchange(PEER.public_key)
        except KeyErasedError:  # replaced twice since the line above
            assert ring.current is not pair
            erased += 1
        else:
            assert secret == PEER.exchange(pair.public_key)
            agreed += 1

    def refresh() -> None:
        ring.refresh()
        time.sleep(0)

    together(read, exchange, exchange, refresh)
    assert agreed > 100
    assert 2 in seen_together <= {1, 2}
    assert len(made) == ring.status.refreshes + 1 > 100
    assert [pair for pair in made if not pair.erased] == list(reversed(ring.accepted))


def test_an_overdue_pair_is_replaced_once_however_many_ask() -> None:
    now_s = 0.0
    made: list[KeyPair] = []

    def generate() -> KeyPair:
        made.append(KeyPair.generate())
        return made[-1]

    ring = KeyRing(10, overlap_s=0, generate=generate, clock=lambda: now_s)
    for period in range(1, 51):
        now_s = 10.0 * period
        begin = threading.Barrier(8)
        got: list[KeyPair] = []

        def ask(begin: threading.Barrier = begin, got: list[KeyPair] = got) -> None:
            begin.wait(10)
            got.append(ring.current)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert got == [made[period]] * 8
        assert len(made) == period + 1


def test_periods_that_are_over_as_soon_as_they_begin() -> None:
    ring = KeyRing(0.01, overlap_s=0.01, clock=lambda: time.monotonic() * 10_000)

    def read() -> None:
        _ = ring.current
        assert 1 <= len(ring.accepted) <= 2
        assert not ring.status.closed

    together(read, read, ring.refresh_if_due, ring.refresh)
    assert ring.status.failures == 0


def test_a_ring_that_is_closed_in_use_says_so_to_everybody() -> None:
    for _ in range(50):
        ring = KeyRing(300)
        ring.refresh()
        held = ring.accepted
        begin = threading.Barrier(4)
        outcomes: list[str] = []

        def use(ring: KeyRing = ring, begin: threading.Barrier = begin, outcomes: list[str] = outcomes) -> None:
            begin.wait(10)
            while True:
                try:
                    ring.accepted[-1].exchange(PEER.public_key)
                    ring.refresh()
                except KeyErasedError:  # by the others' refreshes, or by close()
                    continue
                except KeysUnavailableError as error:
                    outcomes.append(str(error))
                    return

        def close(ring: KeyRing = ring, begin: threading.Barrier = begin) -> None:
            begin.wait(10)
            time.sleep(0.001)
            ring.close()

        threads = [threading.Thread(target=work) for work in (use, use, use, close)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive(), "a thread hangs"
        assert outcomes == ["this key ring is closed and its keys are erased: its app has shut down"] * 3
        assert all(pair.erased for pair in held)


def test_threads_get_along_with_failing_refreshes() -> None:
    calls = 0

    def generate() -> KeyPair:
        nonlocal calls
        calls += 1
        if calls % 3 == 2:
            raise MemoryError("now and then")
        return KeyPair.generate()

    ring = KeyRing(300, generate=generate)

    def refresh() -> None:
        try:
            ring.refresh()
        except MemoryError as error:
            assert str(error) == "now and then"  # noqa: PT017 - every other outcome is allowed

    def read() -> None:
        assert not ring.status.closed
        assert ring.current.public_key

    together(refresh, refresh, read, read)
    status = ring.status
    assert calls == 1 + status.refreshes + status.failures
    assert status.failures > 10
