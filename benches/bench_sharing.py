"""What sharing keys costs: the next epoch for members of a group, and requests to workers that share."""

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import pytest

from benches.comparison import Comparison, Target
from benches.measure import Measure
from server_keys._native import RequestSealer
from tests.helpers.trials import Keys, Trial, trial
from tests.sharing.group_in_held_time import Group, Process

_SIZES: Final = (2, 10, 100, 1000)
SHARED: Final = "server_keys, shared"
UNSHARED: Final = "server_keys, not shared"
_CONNECTIONS: Final = 4
_REQUESTS: Final = 100


def _maker(members: int) -> str:
    return f"{members:,} members: the one that makes it"


def _other(members: int) -> str:
    return f"{members:,} members: each other one"


ROTATION: Final = Comparison(
    title="The next key of a group",
    description=(
        "A member makes the group's next key pair and seals it to each other one's one-time key; each other one opens "
        "its box. All members are in one process, and so is their store."
    ),
    reference=_maker(2),
    speedup_title="speed against two members",
)
REQUESTS: Final = Comparison(
    title="Requests to two workers",
    description=(
        f"Two uvicorn workers answer small sealed requests over {_CONNECTIONS} connections that stay; time is "
        "wall-clock time for one request."
    ),
    reference=UNSHARED,
    speedup_title="rate against not shared",
    targets=(
        Target(
            "Two workers that share: at least 0.98 of the rate of two that do not",
            lambda measured: measured.speedup(SHARED, UNSHARED),
            at_least=0.98,
        ),
    ),
)
COMPARISONS: Final = (ROTATION, REQUESTS)


@cache
def _group(members: int) -> Group:
    group = Group(60.0)
    group.watch = list
    group.join(members)
    group.pass_s(1.5)
    return group


def _next_maker(group: Group) -> Process:
    """Let what was made be published, and return a member that is to make the next epoch."""
    group.pass_s(1.2)
    maker = group.random.choice(group.processes)
    maker.member.bring_forward()
    return maker


@pytest.mark.parametrize("members", _SIZES)
def bench_making_an_epoch(measure: Measure, members: int) -> None:
    group = _group(members)
    maker, before = _next_maker(group), group.shelf().register
    measure(ROTATION, _maker(members), maker.member.look, rounds=1)
    assert group.shelf().register != before
    assert len(group.shelf().boxes) == members - 1


@pytest.mark.parametrize("members", [_SIZES[-1]])
def bench_receiving_an_epoch(measure: Measure, members: int) -> None:
    group = _group(members)
    maker = _next_maker(group)
    maker.member.look()
    others = [process for process in group.processes if process is not maker][:100]

    def receive() -> None:
        for process in others:
            process.member.look()

    measure(ROTATION, _other(members), receive, operations=len(others), rounds=1)
    assert {process.member.epochs.newest for process in others} == {maker.member.epochs.newest}


class _Connection:
    """A connection to one worker, whose key seals its requests."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port)
        self._connection.connect()
        stream = self._connection.sock
        assert stream is not None
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # In plaintext: it blocks for no time, and tells who serves this connection.
        self._connection.request("POST", "/block", b"0")
        self.worker = int(self._connection.getresponse().read())
        self._connection.request("GET", "/.well-known/hpke-keys")
        self._public_key = self._connection.getresponse().read()[3:35]

    def request(self, path: str) -> bytes:
        # No server takes a request twice.
        sealer = RequestSealer(self._public_key)
        headers = {"Ehbp-Encapsulated-Key": sealer.encapsulated_key.hex()}
        self._connection.request("POST", path, sealer.seal(b"{}"), headers)
        response = self._connection.getresponse()
        body = response.read()
        assert response.status == 200, body
        return body

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Trial]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        plans = {UNSHARED: Keys(period_s=300.0, share=None), SHARED: Keys(period_s=300.0)}
        yield {
            contestant: stack.enter_context(trial(folder / str(number), keys))
            for number, (contestant, keys) in enumerate(plans.items())
        }


# Short turns, first the one and then the other: the machine's speed changes by more than sharing costs.
@pytest.mark.parametrize("contestant", [UNSHARED, SHARED, SHARED, UNSHARED] * 3)
def bench_requests(measure: Measure, servers: dict[str, Trial], contestant: str) -> None:
    with ExitStack() as stack:
        run = _requests_at_once(_connections(servers[contestant].port, stack))
        run()
        measure(REQUESTS, contestant, run, operations=_REQUESTS * _CONNECTIONS, rounds=1)


def _connections(port: int, stack: ExitStack) -> list[_Connection]:
    """Connect until each of the two workers has the same number of connections."""
    of_worker: dict[int, list[_Connection]] = {}
    while len(of_worker) < 2 or min(map(len, of_worker.values())) < _CONNECTIONS // 2:
        connection = _Connection(port)
        stack.callback(connection.close)
        of_worker.setdefault(connection.worker, []).append(connection)
    return [each for connections in of_worker.values() for each in connections[: _CONNECTIONS // 2]]


def _requests_at_once(connections: list[_Connection]) -> Callable[[], None]:
    def send_all(connection: _Connection) -> None:
        for _ in range(_REQUESTS):
            connection.request("/echo")

    def run() -> None:
        threads = [threading.Thread(target=send_all, args=(connection,)) for connection in connections]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run
