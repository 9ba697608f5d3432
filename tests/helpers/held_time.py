"""Time that a test holds: it passes when the test says so, or when an event loop has nothing else to do."""

import asyncio
import logging
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class HeldTime:
    """The two clocks of a machine: one goes on while the machine sleeps, and the event loops' clock stands still."""

    def __init__(self) -> None:
        self.boot_s = 1000.0
        self.awake_s = 100.0

    def pass_s(self, seconds: float) -> None:
        """Let time pass while the machine is awake."""
        self.boot_s += seconds
        self.awake_s += seconds

    def sleep_s(self, seconds: float) -> None:
        """Let the machine sleep."""
        self.boot_s += seconds

    def boot(self) -> float:
        """Tell the time since the machine started."""
        return self.boot_s

    def clock_gettime(self, clock: int) -> float:
        """Take the place of `time.clock_gettime`."""
        return self.boot_s if clock == time.CLOCK_BOOTTIME else self.awake_s


class _NeverWaitingSelector(selectors.SelectSelector):
    """A selector that lets held time pass where another would wait for its timeout."""

    def __init__(self, held: HeldTime) -> None:
        super().__init__()
        self._held = held

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready. Really wait only without a timeout, when only another thread can wake the loop."""
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self._held.pass_s(timeout)
        return ready


class HeldTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is held. Take times that floats add exactly (whole seconds, quarters)."""

    def __init__(self, held: HeldTime) -> None:
        super().__init__(_NeverWaitingSelector(held))
        self._held = held

    def time(self) -> float:
        """Tell the held time."""
        return self._held.awake_s


def run_in_held_time(held: HeldTime, main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` and return what it returns; no task may be left, and the loop may have nothing to complain of."""
    complaints = _Complaints()
    logger = logging.getLogger("asyncio")
    logger.addHandler(complaints)
    try:
        with asyncio.Runner(loop_factory=lambda: HeldTimeLoop(held)) as runner:
            result = runner.run(main())
            left = asyncio.all_tasks(runner.get_loop())
            assert not left, f"tasks are left: {left}"
    finally:
        logger.removeHandler(complaints)
    assert not complaints.seen, complaints.seen
    return result


class _Complaints(logging.Handler):
    """Keeps the warnings and errors that are logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record.getMessage())
