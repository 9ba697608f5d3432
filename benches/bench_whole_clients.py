"""Whole clients and apps beside peers: what a call costs from the caller's bytes to the answer's, and an event."""

import contextlib
from collections.abc import Iterator
from typing import Final

import pytest

from benches.comparison import Comparison, Target
from benches.measure import Measure
from benches.units import format_bytes
from benches.whole_clients import (
    CONTESTANTS,
    HPKE_HTTP,
    OURS,
    OURS_ASYNC,
    OURS_BY_X25519,
    OURS_BY_X25519_ASYNC,
    PLAIN,
    TINFOIL,
    Caller,
    Contestant,
)
from benches.whole_server import EVENT
from benches.whole_servers import whole_servers

KIB: Final = 1024
MIB: Final = 1024 * KIB
# How many calls one turn has, by the length of the body in bytes.
CALLS: Final = {100: 50, KIB: 50, 64 * KIB: 25, MIB: 5, 16 * MIB: 2}
EVENTS: Final = 1_000
TURNS: Final = 3
_REFERENCE: Final = {
    OURS.name: TINFOIL.name,
    OURS_BY_X25519.name: TINFOIL.name,
    OURS_ASYNC.name: HPKE_HTTP.name,
    OURS_BY_X25519_ASYNC.name: HPKE_HTTP.name,
}
_PEERS: Final = "speed against tinfoil-ehbp and hpke-http"


# The peers agree on keys by X25519 alone. So does plain EHBP; version 1 does more, by X-Wing.
_WIRES: Final = {"version 1": (OURS, OURS_ASYNC), "X25519 alone": (OURS_BY_X25519, OURS_BY_X25519_ASYNC)}


def _targets(what: str) -> tuple[Target, ...]:
    return tuple(target for wire in _WIRES for target in _targets_of(what, wire))


def _targets_of(what: str, wire: str) -> tuple[Target, ...]:
    ours, ours_async = _WIRES[wire]
    return (
        Target(
            f"{what}, {wire}: at least 1.15× the rate of `tinfoil-ehbp`",
            lambda measured: measured.speedup(ours.name, TINFOIL.name),
            at_least=1.15,
        ),
        Target(
            f"{what}, {wire}: at least 2× the rate of `hpke-http`",
            lambda measured: measured.speedup(ours_async.name, HPKE_HTTP.name),
            at_least=2,
        ),
    )


def _echo(length: int) -> Comparison:
    what = f"Calls with {format_bytes(length)} each way"
    plain = Target(
        f"{what}: at least 0.8× the rate without protection",
        lambda measured: measured.speedup(OURS.name, PLAIN.name),
        at_least=0.8,
    )
    return Comparison(
        title=what,
        description=(
            "A client sends a body to a FastAPI app under uvicorn, uvloop and httptools, which sends it back: one call "
            "after the other over one connection, without TLS. `tinfoil-ehbp` is a sync client and talks to an app "
            "that `server_keys` protects, as ours does. `hpke-http` is an async client, beside our async one, and "
            "protects its app itself. Both peers agree on keys by X25519. Our clients speak version 1 of the wire, "
            "which agrees on them by X-Wing (ML-KEM-768 and X25519) and seals the head of each message, too; or plain "
            "EHBP, which is what a peer does: X25519 alone."
        ),
        reference=_REFERENCE,
        speedup_title=_PEERS,
        targets=(*_targets(what), *((plain,) if length == 16 * MIB else ())),
    )


ECHO: Final = {length: _echo(length) for length in CALLS}
STREAM: Final = Comparison(
    title="Events of a stream, whole clients",
    description=f"The same clients read {EVENTS:,} events of {len(EVENT)} bytes; times are for one event.",
    reference=_REFERENCE,
    speedup_title=_PEERS,
    targets=_targets("Events of a stream"),
)
COMPARISONS: Final = (*ECHO.values(), STREAM)


@pytest.fixture(scope="module")
def callers(repetition: int) -> Iterator[dict[str, Caller]]:
    """Each contestant, connected to its server. Each repetition has new processes."""
    with whole_servers({each.protection for each in CONTESTANTS}) as servers, contextlib.ExitStack() as clients:
        yield {each.name: clients.enter_context(each.connected(servers[each.protection].url)) for each in CONTESTANTS}


# Short turns after each other: who else uses the processors changes within seconds.
@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda each: each.name)
@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("length", CALLS)
def bench_echo(measure: Measure, callers: dict[str, Caller], length: int, contestant: Contestant, turn: int) -> None:
    caller, body = callers[contestant.name], bytes(length)
    caller.echo(body, 1)
    measure.samples(ECHO[length], contestant.name, lambda: caller.echo(body, CALLS[length]))


@pytest.mark.parametrize("contestant", CONTESTANTS, ids=lambda each: each.name)
@pytest.mark.parametrize("turn", range(TURNS))
def bench_events(measure: Measure, callers: dict[str, Caller], contestant: Contestant, turn: int) -> None:
    caller = callers[contestant.name]

    def read() -> None:
        assert caller.read_events(EVENTS) == EVENTS * len(EVENT)

    measure(STREAM, contestant.name, read, operations=EVENTS, rounds=1)
