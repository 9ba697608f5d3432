"""Remembering requests, so that none is served twice: the table alone, in threads and processes, and in a server."""

import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from multiprocessing import get_context
from pathlib import Path
from threading import Barrier
from typing import Final

import pytest
from starlette.types import Receive, Scope, Send

from benches.comparison import Comparison, Target
from benches.measure import Measure
from benches.units import format_seconds
from server_keys import EncryptedBodyMiddleware, KeyRing
from server_keys._checks import Replay
from server_keys._keys.replays import StoreAwayError
from server_keys._native import ReplayTable
from server_keys._sharing.valkey.replays import ValkeyReplays
from server_keys._sharing.valkey_url import ValkeyUrl
from tests.helpers import asgi
from tests.helpers.sealed_requests import Client
from tests.helpers.valkey import VALKEY, store_server

_IDS: Final = 100_000
_ROOM: Final = 2**18
_PLACES: Final = ("in memory", "in a file")
_TOGETHER: Final = (1, 2, 4, 8)
_REQUESTS: Final = 500


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def _processes(count: int) -> str:
    return f"{count} process{'es' * (count > 1)}"


ADD: Final = Comparison(
    title="Remembering a request",
    description=f"Adding an id of 8 bytes to a table with room for {_ROOM}: one that is new, and one that is there.",
    reference={f"seen, {place}": f"new, {place}" for place in _PLACES},
    speedup_title="an id that is there against a new one",
    targets=tuple(
        Target(
            f"Remembering a request from Python, {place}: at most 0.2 µs",
            lambda measured, place=place: measured.time(f"new, {place}"),  # type: ignore[misc]
            at_most=0.2e-6,
            format_value=format_seconds,
        )
        for place in _PLACES
    ),
)
THREADS: Final = Comparison(
    title="Remembering requests in threads",
    description="Threads of Python, which take turns, add new ids to one table in memory; wall-clock time for one id.",
    reference=_threads(1),
    speedup_title="speed against one thread",
)
PROCESSES: Final = Comparison(
    title="Remembering requests in processes",
    description="Processes add new ids to one table in a file at the same time; wall-clock time for one id.",
    reference=_processes(1),
    speedup_title="speed against one process",
)
SERVED: Final = Comparison(
    title="Requests with and without a memory of them",
    description=(
        "A sealed request of 1 KiB through the middleware, without a server around it: it is opened, and a short "
        "answer is sealed."
    ),
    reference="replay=allow",
    speedup_title="speed against replay=allow",
    targets=(
        Target(
            "Requests whose replays are refused: at least 0.97× the speed of those whose replays are served",
            lambda measured: measured.speedup("replay=refuse", "replay=allow"),
            at_least=0.97,
        ),
    ),
)
EVERYWHERE: Final = Comparison(
    title="Asking a store whether another host received a request",
    description="One request after the other, by way of a thread, from a Valkey server on loopback.",
    reference="Valkey",
    speedup_title="",
    targets=(
        Target(
            "Asking Valkey on loopback: at most 1 ms",
            lambda measured: measured.time("Valkey"),
            at_most=1e-3,
            format_value=format_seconds,
        ),
    ),
)
COMPARISONS: Final = (ADD, THREADS, PROCESSES, SERVED, EVERYWHERE)


@contextmanager
def _table_file() -> Iterator[Path]:
    """Yield the path of a table's file, where servers have it."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as folder:
        path = Path(folder) / "table"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        ReplayTable.make_shared(descriptor, _ROOM)
        os.close(descriptor)
        yield path


def _opened(path: Path) -> ReplayTable:
    descriptor = os.open(path, os.O_RDWR)
    try:
        return ReplayTable.open_shared(descriptor)
    finally:
        os.close(descriptor)


def _ids(count: int = _IDS) -> list[bytes]:
    return [os.urandom(8) for _ in range(count)]


def _add_all(table: ReplayTable, ids: list[bytes]) -> None:
    add = table.add
    for request_id in ids:
        add(request_id)


@pytest.mark.parametrize("place", _PLACES)
def bench_add(measure: Measure, place: str) -> None:
    ids = _ids()
    with _table_file() as path:
        table = _opened(path) if place == "in a file" else ReplayTable(_ROOM)
        measure(ADD, f"new, {place}", lambda: _add_all(table, ids), operations=len(ids), rounds=1)


@pytest.mark.parametrize("place", _PLACES)
def bench_add_again(measure: Measure, place: str) -> None:
    ids = _ids()
    with _table_file() as path:
        table = _opened(path) if place == "in a file" else ReplayTable(_ROOM)
        _add_all(table, ids)
        measure(ADD, f"seen, {place}", lambda: _add_all(table, ids), operations=len(ids))


@pytest.mark.parametrize("count", _TOGETHER)
def bench_threads(measure: Measure, count: int) -> None:
    table, parts = ReplayTable(_ROOM), [_ids(_IDS // count) for _ in range(count)]
    start_together = Barrier(count)

    def work(ids: list[bytes]) -> None:
        start_together.wait()
        _add_all(table, ids)

    with ThreadPoolExecutor(count) as pool:
        measure(THREADS, _threads(count), lambda: list(pool.map(work, parts)), operations=_IDS, rounds=1)


def _work(path: Path, count: int, starts_at: float) -> float:
    """Add ids from a time on, and return when all are there."""
    table, ids = _opened(path), _ids(count)
    time.sleep(max(starts_at - time.monotonic(), 0))
    _add_all(table, ids)
    return time.monotonic()


@pytest.mark.parametrize("count", _TOGETHER)
def bench_processes(measure: Measure, count: int) -> None:
    def collect() -> list[float]:
        with _table_file() as path, get_context("forkserver").Pool(count) as pool:
            starts_at = time.monotonic() + 2.0
            work = [(path, _IDS // count, starts_at)] * count
            return [(max(pool.starmap(_work, work, chunksize=1)) - starts_at) / _IDS]

    measure.samples(PROCESSES, _processes(count), collect)


async def _answers(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"an answer"})


@pytest.mark.parametrize("replay", ["refuse", "allow"])
def bench_served(measure: Measure, replay: Replay) -> None:
    with KeyRing(300) as ring:
        app = EncryptedBodyMiddleware(_answers, key_ring=ring, replay=replay)
        measure.samples(SERVED, f"replay={replay}", lambda: asyncio.run(_call_times(app, ring)))


async def _call_times(app: EncryptedBodyMiddleware, ring: KeyRing) -> list[float]:
    times = []
    for _ in range(_REQUESTS):
        client = Client(ring.current)
        pieces = client.seal(bytes(1024))
        began_at = time.perf_counter()
        response = await asgi.call(app, "POST", "/", headers=client.headers, pieces=pieces)
        times.append(time.perf_counter() - began_at)
        assert response.status == 200
    return times


def bench_everywhere(measure: Measure, tmp_path: Path) -> None:
    with store_server(VALKEY, tmp_path) as server, closing(ValkeyReplays(ValkeyUrl.parse(server.url))) as replays:
        measure.samples(EVERYWHERE, "Valkey", lambda: asyncio.run(_asking_times(replays)))


async def _asking_times(replays: ValkeyReplays) -> list[float]:
    times = list[float]()
    while len(times) < _REQUESTS:
        request_id = os.urandom(8)
        began_at = time.perf_counter()
        try:
            assert await replays.is_first(bytes(32), request_id, 60.0)
        except StoreAwayError:  # The first connections take longer than a request waits.
            replays.look_after()
        else:
            times.append(time.perf_counter() - began_at)
    return times
