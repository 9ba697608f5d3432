"""Freed memory goes back to the system while much is held, and when that is gone, without taking much time."""

import ctypes
import sys

import pytest

from server_keys._sealing import freed_memory
from server_keys._sealing.freed_memory import FreedMemory
from tests.helpers.scripts import run_script

MOST = 800


class Trims:
    """Notes when freed memory is given back, each time for as long as the test says."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.now_s = 0.0
        self.held_bytes = 0
        self.at: list[int] = []
        self.freed = FreedMemory(self._trim, lambda: self.now_s)

    def _trim(self, pad: int) -> int:
        assert pad == 0
        self.now_s += self.takes_s
        self.at.append(self.held_bytes)
        return 1

    def come(self, *steps: int) -> None:
        for held_bytes in steps:
            came_bytes = max(held_bytes - self.held_bytes, 0)
            self.held_bytes = held_bytes
            self.freed.note(came_bytes, held_bytes, MOST)


def test_it_goes_back_with_each_eighth_that_comes_beyond_a_quarter() -> None:
    trims = Trims()
    trims.come(*range(0, 801, 50))
    assert trims.at == [250, 400, 550, 700]


def test_it_goes_back_while_others_take_the_place_of_those_that_are_given_up() -> None:
    trims = Trims()
    trims.come(800, *[700, 800] * 4)
    assert trims.at == [800, 800, 800]


def test_it_goes_back_once_when_what_was_held_is_gone() -> None:
    trims = Trims()
    trims.come(800, 400, 100, 50, 0, 50, 0)
    assert trims.at == [800, 50]


def test_nothing_is_done_where_little_is_held() -> None:
    trims = Trims()
    trims.come(*[200, 0] * 100, *[90, 0] * 100)
    assert trims.at == []


def test_it_takes_at_most_a_tenth_of_the_time() -> None:
    trims = Trims(takes_s=0.5)
    for _ in range(1000):
        trims.come(600, 800)
        trims.now_s += 0.01
    assert len(trims.at) > 1
    assert len(trims.at) * 0.5 <= 0.1 * (trims.now_s + 5)


def test_a_c_library_that_gives_nothing_back_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class OtherLibrary:
        def __init__(self, name: None) -> None:
            """Have no functions."""

    monkeypatch.setattr(ctypes, "CDLL", OtherLibrary)
    freed_memory._trim_of_libc.cache_clear()
    try:
        assert freed_memory._trim_of_libc() is None
        FreedMemory().note(800, 800, MOST)
    finally:
        freed_memory._trim_of_libc.cache_clear()


def test_a_python_without_ctypes_keeps_what_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctypes", None)
    freed_memory._trim_of_libc.cache_clear()
    try:
        FreedMemory().note(800, 800, MOST)
    finally:
        freed_memory._trim_of_libc.cache_clear()


def test_ctypes_is_not_imported_before_much_is_held() -> None:
    run_script("""
        import sys
        from server_keys._sealing.freed_memory import FreedMemory

        had = "ctypes" in sys.modules
        freed = FreedMemory()
        freed.note(90, 90, 800)
        assert ("ctypes" in sys.modules) == had == False
        freed.note(710, 800, 800)
        assert "ctypes" in sys.modules
    """)
