"""Sealed calls to servers of several workers while their keys rotate: real servers, real clients, real time.

`SHARING_TRIALS=long` runs each trial for 50 rotations, and with up to 8 workers.
"""

import importlib.util
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.helpers.many_calls import Calls, calls_meanwhile
from tests.helpers.trials import Keys, Trial, started, trial

IS_LONG = os.environ.get("SHARING_TRIALS") == "long"
ROTATIONS = 50 if IS_LONG else 4
CALLS = 2000 if IS_LONG else 200


def call_through_rotations(server: Trial, pids: Sequence[int], rotations: int, calls: int) -> Calls:
    """Call until so many keys were published and so many calls were made."""
    began = server.state(pids[0]).at
    with calls_meanwhile(server.url) as clients:
        server.wait_for_keys(rotations + 1, since=began)
        server.wait_for(lambda: clients.tally.calls >= calls, "calls")
    print(f"{len(pids)} workers, {len(server.published())} keys: {clients.tally}")
    return clients


def assert_nothing_lost(calls: Calls) -> None:
    tally = calls.tally
    assert not tally.failed, tally.failed[:5]
    assert (tally.cut, tally.refusals) == (0, 0)


def assert_one_key_a_period(server: Trial, period_s: float) -> None:
    """Assert that the group as a whole had one new key a period, and that all were made for others, too."""
    changes = server.of("keys")
    passed = (changes[-1].at - changes[0].at) / period_s
    assert len(server.published()) <= passed + 2
    # On a busy machine keys may come late, but not for long.
    assert len(server.published()) >= passed * 0.7
    assert all(change.is_shared for change in changes)


@pytest.mark.parametrize("workers", [2, 4, 8] if IS_LONG else [2, 4])
def test_no_call_is_lost_while_keys_rotate(workers: int, tmp_path: Path) -> None:
    with trial(tmp_path, Keys(), workers=workers) as server:
        pids = server.workers(workers)
        assert_nothing_lost(call_through_rotations(server, pids, ROTATIONS, CALLS))
        assert_one_key_a_period(server, 1.0)
        assert {server.state(pid).more["members"] for pid in pids} == {workers}
        (folder,) = {Path(server.state(pid).more["store"]) for pid in pids}
        assert folder.stat().st_mode & 0o777 == 0o700
        print(f"the longest acceptance: {server.longest_acceptance_s():.2f} s")
        # Lead, period and overlap.
        assert 1.0 + 1.0 <= server.longest_acceptance_s() <= 0.5 + 1.0 + 1.0
    assert not folder.exists(), "the last one who leaves removes it"


def test_without_sharing_the_same_calls_are_refused(tmp_path: Path) -> None:
    with trial(tmp_path, Keys(share=None)) as server:
        calls = call_through_rotations(server, server.workers(2), 3, 60)
        assert calls.tally.refusals > 10
        assert calls.tally.failed, "clients without a second try lose calls"
        assert len(server.published()) >= 2


GRANIAN = ("granian", "--interface", "asgi", "--no-ws", "--log-level", "warning", "--host", "127.0.0.1")
GUNICORN = ("gunicorn", "--worker-class", "asgi", "--log-level", "warning", "--control-socket", "{folder}/control")
BIND = ("--bind", "127.0.0.1:{port}")
SERVERS = {
    "gunicorn": (*GUNICORN, *BIND),
    "gunicorn-preload": (*GUNICORN, *BIND, "--preload"),
    "hypercorn": ("hypercorn", *BIND),
    "granian": (*GRANIAN, "--port", "{port}"),
}


def test_no_call_is_lost_under_other_servers(tmp_path: Path) -> None:
    rotations, calls = (ROTATIONS, CALLS) if IS_LONG else (1, 40)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(started(tmp_path / name, Keys(), server=command))
            for name, command in SERVERS.items()
        }
        for name, server in servers.items():
            print(name, end=": ")
            assert_nothing_lost(call_through_rotations(server, server.workers(2), rotations, calls))
        for server in servers.values():
            server.wait_for_keys(4)
            assert_one_key_a_period(server, 1.0)


def test_no_call_is_lost_under_fastapi_run(tmp_path: Path) -> None:
    if importlib.util.find_spec("fastapi_cli") is None:
        pytest.skip("fastapi-cli is missing: `pip install fastapi-cli` brings it")
    command = ("fastapi", "run", "--host", "127.0.0.1", "--port", "{port}", "--entrypoint", "{app}")
    with trial(tmp_path, Keys(), workers=2, server=command) as server:
        assert_nothing_lost(call_through_rotations(server, server.workers(2), 2, 40))


def test_every_documented_function_takes_part(tmp_path: Path) -> None:
    ways = [
        Keys(way="inject"),
        Keys(way="factory"),
        # Its task makes the ring.
        Keys(way="task", refreshes_every_s=1.0),
        # A task of a shorter period, in every process, refreshes the ring of the lifespan.
        Keys(period_s=30.0, overlap_s=1.0, way="factory", refreshes_every_s=1.0),
    ]
    with ExitStack() as servers:
        running = [servers.enter_context(started(tmp_path / str(number), keys)) for number, keys in enumerate(ways)]
        for keys, server in zip(ways, running, strict=True):
            pids = server.workers(2)
            server.wait_for_one_ring(pids)
            if keys.way == "inject":
                assert_nothing_lost(call_through_rotations(server, pids, 2, 50))
        for server in running:
            server.wait_for_keys(4)
            server.wait_for_one_ring(server.workers(2))
            assert_one_key_a_period(server, 1.0)


def test_a_refresh_asked_for_in_every_process_brings_one_key(tmp_path: Path) -> None:
    with trial(tmp_path, Keys(period_s=60.0)) as server:
        pids = server.workers(2)
        server.wait_for_one_ring(pids)
        (tmp_path / "refresh").touch()
        began = time.monotonic()
        server.wait_for_keys(2)
        assert time.monotonic() - began < 10
        server.wait_for_one_ring(pids)
        assert len(server.published()) == 2
