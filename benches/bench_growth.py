"""How cost grows: with the keys that are held, the length of bodies, the streams that are open, and a key's age."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from benches.comparison import Comparison, Target
from benches.measure import Measure
from benches.open_streams import OpenStreams, allow_many_connections
from benches.units import format_bytes
from benches.whole_clients import OURS, PLAIN, Caller, Contestant
from benches.whole_servers import whole_servers
from server_keys import KeyPair
from server_keys._native import RequestOpener, RequestSealer

KIB: Final = 1024
MIB: Final = 1024 * KIB
CONTESTANTS: Final = (OURS, PLAIN)

# Making the last of these takes seconds: once is enough.
KEYS: Final = (1_000, 10_000, 100_000, 1_000_000)
KEYS_TIME: Final = Comparison(
    title="Keys that are held: time",
    description="`generate_key_pairs(n)` in a new process, on all processors; times are for one key pair.",
    reference=f"{KEYS[0]:,}",
    speedup_title=f"speed against {KEYS[0]:,}",
)
KEYS_MEMORY: Final = Comparison(
    title="Keys that are held: memory",
    description="By how much the same processes have grown, for each key pair that they hold.",
    reference=f"{KEYS[-1]:,}",
    speedup_title=f"memory of {KEYS[-1]:,} against this",
    format_value=lambda count: f"{count:,.0f} bytes",
)

# How many calls one turn has, by the length of the body in bytes.
BODIES: Final = {KIB: 20, 16 * KIB: 20, 256 * KIB: 10, 4 * MIB: 2, 64 * MIB: 1}
STREAMS: Final = (1, 10, 100, 1_000)
EVENTS: Final = 20_000
# With fewer, what a request costs would be measured, and not what an event does.
LEAST_EVENTS_OF_A_STREAM: Final = 200


def _at(contestant: Contestant, size: str) -> str:
    return f"{contestant.name}, {size}"


def _beside_plain(sizes: list[str]) -> dict[str, str]:
    return {_at(OURS, size): _at(PLAIN, size) for size in sizes}


def _streams(count: int) -> str:
    return "1 stream" if count == 1 else f"{count:,} streams"


BODY: Final = Comparison(
    title="The length of a body",
    description="A sync client sends a body to an app that sends it back, as above; times are for one call.",
    reference=_beside_plain([format_bytes(length) for length in BODIES]),
    speedup_title="rate against unprotected",
)
OPEN_STREAMS: Final = Comparison(
    title="Streams that are open",
    description=(
        f"Together, so many streams of one server have {EVENTS:,} events, and each has {LEAST_EVENTS_OF_A_STREAM} at "
        "least; the client reads them all at once and opens none. Times are wall-clock times for one event, requests "
        "included."
    ),
    reference=_beside_plain([_streams(count) for count in STREAMS]),
    speedup_title="rate against unprotected",
)

CURRENT: Final = "sealed to the current key"
PREVIOUS: Final = "sealed to the previous key"
PREVIOUS_KEY: Final = Comparison(
    title="Requests to the previous key",
    description=(
        "Opening a request of 1 KiB where two keys are accepted. One that is sealed to the previous key is tried with "
        "the current one first."
    ),
    reference=CURRENT,
    speedup_title="speed against the current key",
    targets=(
        Target(
            "A request to the previous key: at least 0.45 of the speed of one to the current key",
            lambda measured: measured.speedup(PREVIOUS, CURRENT),
            at_least=0.45,
        ),
    ),
)
COMPARISONS: Final = (KEYS_TIME, KEYS_MEMORY, BODY, OPEN_STREAMS, PREVIOUS_KEY)

_HOLD_KEYS: Final = """
import json, re, sys, time
from pathlib import Path
from server_keys import generate_key_pairs

def resident_bytes():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

count = int(sys.argv[1])
generate_key_pairs(10)
before = resident_bytes()
began = time.perf_counter()
held = generate_key_pairs(count)
took_s = time.perf_counter() - began
print(json.dumps([took_s / count, (resident_bytes() - before) / count]))
"""


@pytest.fixture(scope="module")
def of_held_keys(repetition: int) -> dict[int, tuple[float, float]]:
    """What a key pair takes in this repetition, in seconds and in bytes, by how many are held."""
    counts = KEYS if repetition == 0 else KEYS[:-1]
    command = [sys.executable, "-c", _HOLD_KEYS]
    return {
        count: tuple(json.loads(subprocess.run([*command, str(count)], stdout=subprocess.PIPE, check=True).stdout))
        for count in counts
    }


@pytest.mark.parametrize("count", KEYS)
@pytest.mark.parametrize("comparison", [KEYS_TIME, KEYS_MEMORY], ids=lambda comparison: comparison.title)
def bench_held_keys(
    measure: Measure, of_held_keys: dict[int, tuple[float, float]], comparison: Comparison, count: int
) -> None:
    if count not in of_held_keys:
        pytest.skip("making so many takes seconds: the first repetition has measured it")
    seconds, memory = of_held_keys[count]
    measure.samples(comparison, f"{count:,}", lambda: [seconds if comparison is KEYS_TIME else memory])


@pytest.fixture(scope="module")
def callers(repetition: int) -> Iterator[dict[str, Caller]]:
    with whole_servers(each.protection for each in CONTESTANTS) as servers:
        ours, plain = (each.connected(servers[each.protection].url) for each in CONTESTANTS)
        with ours as protected, plain as unprotected:
            yield {OURS.name: protected, PLAIN.name: unprotected}


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda each: each.name)
@pytest.mark.parametrize("length", BODIES)
def bench_bodies(measure: Measure, callers: dict[str, Caller], length: int, contestant: Contestant) -> None:
    body, calls = bytes(length), BODIES[length]
    name = _at(contestant, format_bytes(length))
    measure.samples(BODY, name, lambda: callers[contestant.name].echo(body, calls))


@pytest.fixture(scope="module")
def open_streams(repetition: int) -> Iterator[dict[str, OpenStreams]]:
    allow_many_connections(max(STREAMS))
    with whole_servers(each.protection for each in CONTESTANTS) as servers:
        yield {each.name: OpenStreams(servers[each.protection].url, sealed=each is OURS) for each in CONTESTANTS}


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda each: each.name)
@pytest.mark.parametrize("count", STREAMS)
def bench_open_streams(
    measure: Measure, open_streams: dict[str, OpenStreams], count: int, contestant: Contestant
) -> None:
    name = _at(contestant, _streams(count))
    streams = open_streams[contestant.name]
    events = max(EVENTS // count, LEAST_EVENTS_OF_A_STREAM)
    measure.samples(OPEN_STREAMS, name, lambda: [streams.read_all(count, events) / (count * events)])


@pytest.mark.parametrize("contestant", [CURRENT, PREVIOUS])
def bench_previous_key(measure: Measure, contestant: str) -> None:
    current, previous = KeyPair.generate(), KeyPair.generate()
    client = RequestSealer((current if contestant == CURRENT else previous).public_key)
    encapsulated_key, body = client.encapsulated_key, client.seal(bytes(KIB))
    measure(PREVIOUS_KEY, contestant, lambda: RequestOpener(encapsulated_key, [current, previous]).feed(body))
