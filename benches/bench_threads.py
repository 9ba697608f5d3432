"""What a second thread adds: who computes off the GIL gets up to twice as much done, who holds it gets nothing."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Final

import pytest

from benches.comparison import Comparison, Target
from benches.measure import Measure
from benches.peers import PEERS, PLAIN_PYTHON, SERVER_KEYS, Peer
from server_keys import KeyPair
from server_keys._native import RequestOpener, RequestSealer

_PRIVATE_KEY: Final = bytes(range(32))
_PEER_PUBLIC_KEY: Final = KeyPair.from_private_key(bytes(range(1, 33))).public_key


def _contestant(peer: Peer, threads: int) -> str:
    return f"{peer}, {'one thread' if threads == 1 else 'two threads'}"


def _comparison(title: str, operation: str) -> Comparison:
    return Comparison(
        title=title,
        description=f"{operation}, one after the other; times are wall-clock time for one operation.",
        reference={_contestant(peer, 2): _contestant(peer, 1) for peer in PEERS},
        speedup_title="two threads against one",
    )


def _opening_contestant(threads: int) -> str:
    return f"{SERVER_KEYS}, {'one thread' if threads == 1 else 'eight threads'}"


GENERATION: Final = _comparison("Key pairs in two threads", "Each thread makes single key pairs")
EXCHANGE: Final = _comparison("Key exchanges in two threads", "Each thread exchanges with one private key")
OPENING_THREADS: Final = (1, 8)
OPENING: Final = Comparison(
    title="Opening bodies in eight threads",
    description="Each thread opens requests of 1 MiB; times are wall-clock time for one body.",
    reference=_opening_contestant(1),
    speedup_title="eight threads against one",
    targets=(
        Target(
            "Bodies of 1 MiB in eight threads, on two cores: at least 1.9× the speed of one thread",
            lambda measured: measured.speedup(_opening_contestant(8), _opening_contestant(1)),
            at_least=1.9,
        ),
    ),
)
COMPARISONS: Final = (GENERATION, EXCHANGE, OPENING)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("peer", PEERS, ids=str)
def bench_generation(measure: Measure, peer: Peer, threads: int) -> None:
    _measure_in_threads(measure, GENERATION, peer, peer.generate, threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("peer", PEERS, ids=str)
def bench_exchange(measure: Measure, peer: Peer, threads: int) -> None:
    exchange = peer.exchange_of(_PRIVATE_KEY)
    _measure_in_threads(measure, EXCHANGE, peer, lambda: exchange(_PEER_PUBLIC_KEY), threads)


@pytest.mark.parametrize("threads", OPENING_THREADS)
def bench_opening(measure: Measure, threads: int) -> None:
    text = bytes(1024 * 1024)
    server = KeyPair.generate()
    client = RequestSealer(server.public_key)
    encapsulated_key, body = client.encapsulated_key, client.seal(text)

    def open_body() -> None:
        assert len(RequestOpener(encapsulated_key, [server]).feed(body)) == len(text)

    _run_in_threads(measure, OPENING, _opening_contestant(threads), open_body, threads, operations_per_thread=100)


def _measure_in_threads(
    measure: Measure, comparison: Comparison, peer: Peer, operate: Callable[[], object], threads: int
) -> None:
    # Long enough that threads share the GIL as they do in a server: many of its switch intervals of 5 ms.
    operations_per_thread = 50 if peer is PLAIN_PYTHON else 2_000
    _run_in_threads(measure, comparison, _contestant(peer, threads), operate, threads, operations_per_thread)


def _run_in_threads(
    measure: Measure,
    comparison: Comparison,
    contestant: str,
    operate: Callable[[], object],
    threads: int,
    operations_per_thread: int,
) -> None:
    start_together = Barrier(threads)

    def work(_thread: int) -> None:
        start_together.wait()
        for _ in range(operations_per_thread):
            operate()

    with ThreadPoolExecutor(threads) as pool:
        measure(
            comparison,
            contestant,
            lambda: list(pool.map(work, range(threads))),
            operations=threads * operations_per_thread,
        )
