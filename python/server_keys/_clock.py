"""The clock that keys live by."""

import time


def boot_time() -> float:
    """Return seconds on a clock that goes on while the machine sleeps, where the system has one (CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
