"""How much of the machine others used during a run: a busy machine explains figures that nothing else does."""

import os
import resource
from pathlib import Path

_STAT = Path("/proc/stat")


class OtherLoad:
    """Counts the processors' time that other processes take from its creation on, where Linux tells."""

    def __init__(self) -> None:
        self._start = _busy_total_and_own_s()

    def describe(self) -> str:
        """One sentence, or nothing where the system does not say. Child processes count once they have been awaited."""
        end = _busy_total_and_own_s()
        if self._start is None or end is None:
            return ""
        busy_s, total_s, own_s = (after - before for after, before in zip(end, self._start, strict=True))
        return f"Meanwhile other processes took {max(busy_s - own_s, 0) / total_s:.0%} of the processors' time."


def _busy_total_and_own_s() -> tuple[float, float, float] | None:
    if not _STAT.exists():
        return None
    ticks = [int(field) for field in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    # Of these, `idle` and `iowait` are no work.
    total, unused = sum(ticks), ticks[3] + ticks[4]
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own_s = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return (total - unused) / ticks_per_s, total / ticks_per_s, own_s
