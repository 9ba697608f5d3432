"""Memory that was freed goes back to the system where unfinished requests hold much.

What a server reads from many connections at once leaves holes between other blocks when it is freed. glibc keeps them:
they would add up with what the requests hold, and stay when that is gone.
"""

import time
from collections.abc import Callable
from functools import cache

# Going through the heap takes a millisecond, and giving 100 MiB back another twenty: at most a tenth of the time.
_MOST_OF_THE_TIME = 0.1


@cache
def _trim_of_libc() -> Callable[[int], int] | None:
    try:
        # Most processes never hold much, and need no ctypes. A Python that was built without libffi has none.
        import ctypes

        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (ImportError, AttributeError, OSError, TypeError):  # other C libraries do not trim
        return None
    return trim


def _give_back_by_libc(pad: int) -> int:
    trim = _trim_of_libc()
    return 0 if trim is None else trim(pad)


class FreedMemory:
    """Gives freed memory back while much is held, and once more when that is gone. It needs a lock around it.

    Args:
        trim: gives back what is free.
        clock: tells the time in seconds.
    """

    def __init__(
        self, trim: Callable[[int], int] = _give_back_by_libc, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._trim = trim
        self._clock = clock
        self._came_bytes = 0
        self._was_much = False
        self._not_before_s = float("-inf")

    def note(self, came_bytes: int, held_bytes: int, most_bytes: int) -> None:
        """Note what is held.

        Args:
            came_bytes: how much came to it.
            held_bytes: how much it is now.
            most_bytes: how much it may be.
        """
        self._came_bytes += came_bytes
        if held_bytes < most_bytes // 8:
            self._came_bytes = 0
            if self._was_much:
                self._was_much = False
                self._trim(0)
        elif held_bytes > most_bytes // 4 and self._came_bytes > most_bytes // 8:
            self._was_much = True
            began_at = self._clock()
            if began_at >= self._not_before_s:
                self._came_bytes = 0
                self._trim(0)
                ended_at = self._clock()
                self._not_before_s = ended_at + (ended_at - began_at) / _MOST_OF_THE_TIME
