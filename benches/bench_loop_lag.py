"""How late an asyncio loop wakes while another thread makes keys: the delay that a server's requests would see."""

import asyncio
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from benches.comparison import Comparison, Panel, Target
from benches.measure import Measure
from benches.measured import MAXIMUM, MEDIAN, P99
from benches.peers import CRYPTOGRAPHY, PYNACL, SERVER_KEYS, Peer
from benches.units import format_seconds
from server_keys import generate_key_pairs

KEYS: Final = 10_000
SLEEP_S: Final = 0.001
AT_ONCE: Final = "server_keys, at once"
ONE_BY_ONE: Final = "server_keys, one by one"
NOTHING: Final = "no keys made"

LOOP_LAG: Final = Comparison(
    title="Lag of an asyncio loop",
    description=(
        f"The loop sleeps {format_seconds(SLEEP_S)} again and again and notes how late it wakes, while another thread "
        f"makes {KEYS:,} key pairs, over and over: `generate_key_pairs({KEYS})`, or a loop of {KEYS:,}."
    ),
    reference=CRYPTOGRAPHY.name,
    speedup_title="cryptography's p99 against this",
    quantiles={"median": MEDIAN, "p99": P99, "maximum": MAXIMUM},
    speedup_fraction=P99,
    targets=(
        Target(
            f"Loop lag while a thread makes {KEYS:,} at once: p99 at most 1 ms",
            lambda measured: measured.time(AT_ONCE, P99),
            at_most=0.001,
            format_value=format_seconds,
        ),
        Target(
            f"Loop lag while a thread makes {KEYS:,} one by one: p99 at most 1 ms",
            lambda measured: measured.time(ONE_BY_ONE, P99),
            at_most=0.001,
            format_value=format_seconds,
        ),
    ),
    panel=Panel(
        "Lag of an asyncio loop",
        f"p99, while a thread makes {KEYS:,} key pairs",
        (AT_ONCE, ONE_BY_ONE, CRYPTOGRAPHY.name, PYNACL.name),
        P99,
    ),
)
COMPARISONS: Final = (LOOP_LAG,)


def _make_in_a_loop(peer: Peer) -> None:
    for _ in range(KEYS):
        peer.generate()


@pytest.mark.parametrize(
    ("contestant", "make_keys"),
    [
        (NOTHING, partial(time.sleep, 0.1)),
        (AT_ONCE, partial(generate_key_pairs, KEYS)),
        (ONE_BY_ONE, partial(_make_in_a_loop, SERVER_KEYS)),
        (CRYPTOGRAPHY.name, partial(_make_in_a_loop, CRYPTOGRAPHY)),
        (PYNACL.name, partial(_make_in_a_loop, PYNACL)),
    ],
)
def bench_loop_lag(
    measure: Measure, pytestconfig: pytest.Config, contestant: str, make_keys: Callable[[], object]
) -> None:
    duration_s = pytestconfig.getoption("lag_time")
    measure.samples(LOOP_LAG, contestant, lambda: asyncio.run(_lags_while(make_keys, duration_s)))


async def _lags_while(make_keys: Callable[[], object], duration_s: float) -> list[float]:
    """How late the loop woke each time, in seconds, while a thread called `make_keys` for at least `duration_s`."""
    deadline = time.perf_counter() + duration_s

    def work() -> None:
        while time.perf_counter() < deadline:
            make_keys()

    worker = threading.Thread(target=work)
    worker.start()
    lags = []
    while worker.is_alive():
        due = time.perf_counter() + SLEEP_S
        await asyncio.sleep(SLEEP_S)
        lags.append(time.perf_counter() - due)
    worker.join()
    return lags
