"""The history of keys under threads: request handlers observe the ring while a task watches it."""

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from examples.demo.key_history import KeyEvent, KeyHistory, KeyLife
from server_keys import KeyRing

REFRESHES = 150
OBSERVERS = 4


@pytest.fixture(autouse=True)
def _frequent_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def until_done(work: Callable[[], None], beside: Callable[[], None]) -> None:
    """Run `work` once while threads run `beside` again and again, and raise their errors."""
    done = threading.Event()
    errors: list[BaseException] = []

    def repeat() -> None:
        try:
            while not done.is_set():
                beside()
        except BaseException as error:  # noqa: BLE001 - the test's own thread raises it again
            errors.append(error)

    threads = [threading.Thread(target=repeat) for _ in range(OBSERVERS)]
    for thread in threads:
        thread.start()
    try:
        work()
    finally:
        done.set()
        for thread in threads:
            thread.join(30)
    for error in errors:
        raise error


def test_each_event_is_told_once_and_in_order_however_many_observe() -> None:
    told: list[tuple[KeyEvent, int]] = []
    history = KeyHistory(on_event=lambda event, life: told.append((event, life.number)))

    def refresh() -> None:
        for _ in range(REFRESHES):
            ring.refresh()
            history.observe(ring)

    def observe() -> None:
        history.observe(ring)
        lives = history.lives
        numbers = [life.number for life in lives]
        assert numbers == list(range(numbers[0], numbers[0] - len(numbers), -1))
        assert [life.replaced_at is None for life in lives] == [True] + [False] * (len(lives) - 1)

    with KeyRing(1000) as ring:
        history.observe(ring)
        until_done(refresh, beside=observe)
    history.observe(ring)
    everything = REFRESHES + 1
    assert (history.made, history.unerased) == (everything, 0)
    assert [number for event, number in told if event == "came"] == list(range(1, everything + 1))
    assert [number for event, number in told if event == "replaced"] == list(range(1, everything))
    assert sorted(number for event, number in told if event == "erased") == list(range(1, everything + 1))


def test_each_agreement_counts_beside_others_and_beside_observers() -> None:
    told: list[int] = []
    history = KeyHistory(on_event=lambda event, life: told.append(life.agreements) if event == "agreed" else None)

    def agree() -> None:
        history.note_agreement(ring.current.public_key)

    def agree_often() -> None:
        for _ in range(REFRESHES):
            agree()
            history.observe(ring)

    with KeyRing(1000) as ring:
        history.observe(ring)
        until_done(agree_often, beside=agree)
    assert told == list(range(1, len(told) + 1))
    assert history.lives[0].agreements == len(told) > REFRESHES


def test_nobody_waits_to_read_while_somebody_observes() -> None:
    seen: list[tuple[int, int]] = []

    def read_elsewhere(_event: KeyEvent, life: KeyLife) -> None:
        # A log handler may draw the table in another thread while this thread waits for it.
        reader = threading.Thread(target=lambda: seen.append((life.number, history.lives[0].number)))
        reader.start()
        reader.join(10)
        assert not reader.is_alive(), "reading waits for the one who observes"

    history = KeyHistory(on_event=read_elsewhere)
    with KeyRing(1000) as ring:
        history.observe(ring)
    assert seen == [(1, 1)]
