"""How much memory a call of 16 MiB each way takes, beside the body that its caller holds."""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from benches.comparison import Comparison, Target
from benches.measure import Measure
from benches.measured import Estimate, Measured
from benches.units import format_mebibytes
from benches.whole_clients import HPKE_HTTP, OURS, PLAIN, TINFOIL, Contestant
from benches.whole_servers import PeakMemory, whole_servers

BODY_BYTES: Final = 16 * 1024 * 1024
REPETITIONS: Final = 3
CONTESTANTS: Final = (OURS, TINFOIL, HPKE_HTTP, PLAIN)


def _added(measured: Measured) -> Estimate:
    ours, plain = measured.time(OURS.name), measured.time(PLAIN.name)
    return Estimate(ours.value - plain.value, ours.low - plain.high, ours.high - plain.low)


def _comparison(end: str) -> Comparison:
    return Comparison(
        title=f"Memory of a {end}",
        description=(
            f"By how much the {end}'s process grows, at most, in three calls of 16 MiB each way: a new process, which "
            "has answered a small call before. What Python's garbage collector has yet to free of calls before counts: "
            "each response of `httpx` waits for it, but not those of `server_keys`."
        ),
        reference=PLAIN.name,
        speedup_title="memory without protection against this",
        targets=(
            Target(
                f"Memory of a {end}, 16 MiB each way: at most half a body more than without protection",
                _added,
                at_most=BODY_BYTES / 2,
                format_value=format_mebibytes,
            ),
        ),
        format_value=format_mebibytes,
    )


CLIENT: Final = _comparison("client")
SERVER: Final = _comparison("server")
COMPARISONS: Final = (CLIENT, SERVER)


@pytest.fixture(scope="module")
def measured_already(repetition: int) -> dict[str, dict[str, float]]:
    """What the contestants grew by in this repetition: both ends are measured in the same calls."""
    if repetition >= REPETITIONS:
        pytest.skip(f"it hardly differs: {REPETITIONS} repetitions are enough")
    return {}


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda each: each.name)
@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda comparison: comparison.title)
def bench_memory(
    measure: Measure,
    measured_already: dict[str, dict[str, float]],
    comparison: Comparison,
    contestant: Contestant,
) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell how much memory a process took at most")
    if contestant.name not in measured_already:
        measured_already[contestant.name] = _grown_bytes(contestant)
    measure.samples(comparison, contestant.name, lambda: [measured_already[contestant.name][comparison.title]])


def _grown_bytes(contestant: Contestant) -> dict[str, float]:
    with whole_servers([contestant.protection]) as servers:
        server = servers[contestant.protection]
        with contestant.connected(server.url) as caller:
            caller.echo(bytes(1024), 1)
        of_server = PeakMemory(server.pid)
        command = [sys.executable, "-m", "benches.whole_memory", contestant.name, server.url, str(BODY_BYTES)]
        of_client = int(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        return {CLIENT.title: of_client, SERVER.title: of_server.grown_bytes()}
