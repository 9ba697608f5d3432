"""Calls to servers of several workers while their keys rotate, with one key ring and with one in each worker."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from benches.measured import Estimate
from tests.helpers.many_calls import Calls, Tally, cached_key, without_second_try
from tests.helpers.trials import Keys, Trial, trial

_WORKERS: Final = (1, 2, 4, 8)
_KEYS: Final = {True: Keys(), False: Keys(share=None)}
PERIOD_S: Final = Keys().period_s


@dataclass(frozen=True)
class CallsToWorkers:
    """What became of calls to one server."""

    workers: int
    shared: bool
    ours: Tally
    """The calls of our client. It calls again after a refusal of a key (422)."""
    others: Tally
    arrival: Estimate | None
    """The seconds from the making of a key until the last worker accepts it; None where workers share nothing."""

    @property
    def name(self) -> str:
        if self.workers == 1:
            return "1 worker"
        return f"{self.workers} workers, {'shared' if self.shared else 'not shared'}"


def call_workers(*, quick: bool) -> list[CallsToWorkers]:
    """Call servers of 1, 2, 4 and 8 workers.

    Args:
        quick: make fewer calls, to 2 workers only.
    """
    plans = [(workers, shared) for workers in _WORKERS for shared in (True, False) if workers > 1 or shared]
    if quick:
        plans = [plan for plan in plans if plan[0] == 2]
    return [_call(workers, shared, seconds=1.0 if quick else 5.0) for workers, shared in plans]


def _call(workers: int, shared: bool, *, seconds: float) -> CallsToWorkers:
    with TemporaryDirectory() as folder, trial(Path(folder), _KEYS[shared], workers=workers) as server:
        pids = server.workers(workers)
        if shared and workers > 1:
            server.wait_for_one_ring(pids)
        ours, others = (Calls(server.url, [client], pause_s=0.01) for client in (cached_key, without_second_try))
        time.sleep(seconds)
        ours.end()
        others.end()
        arrival = _arrival(server, pids) if shared and workers > 1 else None
        return CallsToWorkers(workers, shared, ours.tally, others.tally, arrival)


def _arrival(server: Trial, pids: Sequence[int]) -> Estimate:
    """Return how long keys took from their making to the last worker: the median, the least and the greatest."""
    took_s = []
    for made in server.logged("made epoch"):
        key_id = made.more["message"].partition(", key ")[2][:16]
        arrived = [
            min(
                (
                    event.at
                    for event in server.of("keys", pid=pid)
                    if any(key.startswith(key_id) for key in event.more["accepted"])
                ),
                default=None,
            )
            for pid in pids
        ]
        if None not in arrived:
            took_s.append(max(at for at in arrived if at is not None) - made.at)
    return Estimate.of(took_s)
