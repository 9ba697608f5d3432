"""Requests to a server that signs its keys and refuses replays, beside one that does neither."""

import contextlib
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Final

import httpx2
import pytest

from benches.comparison import Comparison, Target
from benches.measure import Measure
from benches.whole_servers import WholeServer, whole_servers
from server_keys._native import RequestSealer
from server_keys._sealing.key_entries import keys_of
from tests.helpers.sealed_requests import ClientV1

_BODY: Final = bytes(1024)
_REQUESTS: Final = 300
_TURNS: Final = 5
# The server's protection, by what the report calls it.
_PROTECTIONS: Final = {"trust": "signed", "no trust": "replays_allowed"}
_WIRES: Final = {"plain EHBP": "ehbp", "version 1": "v1"}


def _contestant(wire: str, protection: str) -> str:
    return f"{wire}, {protection}"


TRUST: Final = Comparison(
    title="Requests to a server with an identity that refuses replays",
    description=(
        "A FastAPI app under uvicorn, uvloop and httptools sends back sealed bodies of 1 KiB: the time of the "
        "processor that the server takes for a request. With trust its keys are signed, and replays are refused; "
        "without, neither. Both bound what unfinished requests hold, which cannot be switched off."
    ),
    reference={_contestant(wire, "trust"): _contestant(wire, "no trust") for wire in _WIRES},
    speedup_title="rate against the one without",
    targets=tuple(
        Target(
            f"Requests by {wire} with an identity and replays refused: at least 0.97× the rate without",
            lambda measured, wire=wire: measured.speedup(  # type: ignore[misc]
                _contestant(wire, "trust"), _contestant(wire, "no trust")
            ),
            at_least=0.97,
        )
        for wire in _WIRES
    ),
)
COMPARISONS: Final = (TRUST,)


@pytest.fixture(scope="module")
def servers(repetition: int) -> Iterator[dict[str, WholeServer]]:
    """A server of each kind. Each repetition has new processes."""
    with whole_servers(_PROTECTIONS.values()) as servers:
        yield servers


# Short turns after each other: who else uses the processors changes within seconds.
@pytest.mark.parametrize("protection", _PROTECTIONS)
@pytest.mark.parametrize("turn", range(_TURNS))
@pytest.mark.parametrize("wire", _WIRES)
def bench_trust(measure: Measure, servers: dict[str, WholeServer], wire: str, protection: str, turn: int) -> None:
    server = servers[_PROTECTIONS[protection]]
    if not Path(f"/proc/{server.pid}/schedstat").exists():
        pytest.skip("this system does not tell how much time of the processor a process took")
    keys = httpx2.get(f"{server.url}/.well-known/hpke-keys").content
    # Each is sealed anew, before the clock runs: a second one is refused.
    requests = [_request(keys, _WIRES[wire]) for _ in range(_REQUESTS)]
    measure.samples(TRUST, _contestant(wire, protection), lambda: [_server_time(server, requests)])


def _request(keys: bytes, wire: str) -> bytes:
    if wire == "v1":
        client = ClientV1.of_answer(keys, "POST", "/echo")
        ((_, header),), body = client.headers, b"".join(client.seal(_BODY))
    else:
        sealer = RequestSealer(keys_of(keys).x25519)
        header, body = sealer.encapsulated_key.hex(), sealer.seal(_BODY)
    head = f"POST /echo HTTP/1.1\r\nHost: x\r\nEhbp-Encapsulated-Key: {header}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _server_time(server: WholeServer, requests: list[bytes]) -> float:
    """Send the requests, one after the other. Return how long the processor worked for one, in seconds."""
    address = httpx2.URL(server.url)
    with contextlib.closing(socket.create_connection((address.host, address.port), timeout=60)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began_at = _processor_s(server.pid)
        for request in requests:
            connection.sendall(request)
            _read_answer(connection)
        return (_processor_s(server.pid) - began_at) / len(requests)


def _read_answer(connection: socket.socket) -> None:
    answer = HTTPResponse(connection)
    answer.begin()
    assert answer.status == 200
    assert len(answer.read()) > len(_BODY)


def _processor_s(pid: int) -> float:
    """Return how long the processor has worked for all threads of a process, in seconds."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
