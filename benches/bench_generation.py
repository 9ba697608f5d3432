"""Making key pairs, with their raw public keys: one, and a thousand at once."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from benches.comparison import Comparison, Panel, Target
from benches.measure import Measure
from benches.peers import CRYPTOGRAPHY, PEERS, PLAIN_PYTHON, PYNACL, SERVER_KEYS, Peer, faster_than
from server_keys import generate_key_pairs

MANY: Final = 1_000
ONE_CPU: Final = "server_keys, one CPU"
TWO_CPUS: Final = "server_keys, two CPUs"

ONE_KEY_PAIR: Final = Comparison(
    title="One key pair",
    description="A new key pair and its raw public key, one after the other.",
    reference=CRYPTOGRAPHY.name,
    speedup_title="speed against cryptography",
    targets=(faster_than(CRYPTOGRAPHY, "One key pair", 4), faster_than(PYNACL, "One key pair", 2)),
    panel=Panel("One key pair", "with its raw public key", (SERVER_KEYS.name, CRYPTOGRAPHY.name, PYNACL.name)),
)
MANY_KEY_PAIRS: Final = Comparison(
    title=f"{MANY:,} key pairs at once",
    description=(
        f"`generate_key_pairs({MANY})` against a loop of {MANY:,}, each with the raw public keys read and the pairs "
        "freed; times are for one key pair. All but one contestant are bound to one CPU (`sched_setaffinity`)."
    ),
    reference=CRYPTOGRAPHY.name,
    speedup_title="speed against cryptography",
    targets=(
        Target(
            f"{MANY:,} at once, on one core: at least 2.5× `cryptography`'s speed",
            lambda measured: measured.speedup(ONE_CPU, CRYPTOGRAPHY.name),
            at_least=2.5,
        ),
        Target(
            f"{MANY:,} at once, on two cores: at least 1.7× the speed on one",
            lambda measured: measured.speedup(TWO_CPUS, ONE_CPU),
            at_least=1.7,
        ),
    ),
    panel=Panel(
        f"{MANY:,} key pairs at once",
        "time for each, with its raw public key",
        (TWO_CPUS, ONE_CPU, CRYPTOGRAPHY.name, PYNACL.name),
    ),
)
COMPARISONS: Final = (ONE_KEY_PAIR, MANY_KEY_PAIRS)


@pytest.mark.parametrize("peer", PEERS, ids=str)
def bench_one_key_pair(measure: Measure, peer: Peer) -> None:
    measure(ONE_KEY_PAIR, peer.name, peer.generate)


def _generate_at_once() -> list[bytes]:
    return [key_pair.public_key for key_pair in generate_key_pairs(MANY)]


def _generate_in_a_loop(peer: Peer) -> Callable[[], list[bytes]]:
    return lambda: [peer.generate() for _ in range(MANY)]


@contextmanager
def _bound_to_cpus(count: int) -> Iterator[None]:
    """Bind this thread, and the threads that it starts meanwhile, to `count` CPUs."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not bind threads to CPUs (sched_setaffinity)")
    allowed = os.sched_getaffinity(0)
    if len(allowed) < count:
        pytest.skip(f"{count} CPUs are needed, and this process may use {len(allowed)}")
    os.sched_setaffinity(0, sorted(allowed)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("contestant", "cpus", "generate_many"),
    [
        (ONE_CPU, 1, _generate_at_once),
        (TWO_CPUS, 2, _generate_at_once),
        (CRYPTOGRAPHY.name, 1, _generate_in_a_loop(CRYPTOGRAPHY)),
        (PYNACL.name, 1, _generate_in_a_loop(PYNACL)),
        (PLAIN_PYTHON.name, 1, _generate_in_a_loop(PLAIN_PYTHON)),
    ],
)
def bench_many_key_pairs(
    measure: Measure, contestant: str, cpus: int, generate_many: Callable[[], list[bytes]]
) -> None:
    # One round of plain Python takes longer than all rounds of the others.
    rounds = 1 if contestant == PLAIN_PYTHON.name else None
    with _bound_to_cpus(cpus):
        measure(MANY_KEY_PAIRS, contestant, generate_many, operations=MANY, rounds=rounds)
